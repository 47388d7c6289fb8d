#!/usr/bin/env python3
"""sd against PyTorch on the same cores, and sd's methods against its own plain training.

    ./run bench --versus-pytorch [--precision float|bf16] [--rows REGEX] [--rounds N] [--seconds S] [--threads N]
                [--no-compile] [--json FILE]

All sides stay alive and run in turn, a few seconds each, so that whatever else the machine does meets all. A round
gives one ratio; what is printed is the median of the rounds and their range. PyTorch runs contiguous and channels_last
first, and the quicker of the two is what is compared.

--precision bf16: networks whose tensors are stored in bfloat16, against PyTorch under autocast and in float, both in
both formats and in every round. Evaluations are compared with OpenVINO, in bfloat16 and in float, and with ONNX Runtime,
which has float, too. Of each program's settings the quickest, by the median of the rounds, is what is compared; --json
has them all.
"""
import argparse
import contextlib
import json
import os
import pathlib
import platform
import re
import statistics
import subprocess
import sys
import tempfile

# The packages of programs that evaluations in bfloat16 are compared with where they are installed.
PACKAGES = {"OpenVINO": ("openvino",), "ONNX Runtime": ("onnxruntime", "onnx")}
PYTORCH_SIDE = pathlib.Path(__file__).with_name("bench_pytorch.py")
FORMATS = ("contiguous", "channels_last")


class SideFailed(Exception):
    """A side ended before it was done."""


class Side:
    """A process that runs one workload as often as it is told."""

    def __init__(self, command, threads):
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors,
                                        text=True, env={**os.environ, "OMP_NUM_THREADS": str(threads)})
        try:
            self.cycle, self.images = map(int, self._line().split())
            self.runs = self.cycle
        except BaseException:
            self.close()
            raise

    def _line(self):
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.errors.seek(0)
            lines = self.errors.read().strip().splitlines()
            raise SideFailed(lines[-1] if lines else f"exit status {self.process.returncode}")
        return line

    def seconds_per_image(self):
        """Of one turn."""
        try:
            print(self.runs, file=self.process.stdin, flush=True)
        except BrokenPipeError:
            pass  # the line that is missing tells more
        return float(self._line()) / (self.runs * self.images)

    def seconds_per_cycle(self):
        """As one turn has it."""
        return self.seconds_per_image() * self.images * self.cycle

    def close(self):
        with contextlib.suppress(BrokenPipeError):  # what a dead process did not read
            self.process.stdin.close()
        self.process.terminate()
        self.process.wait()
        self.process.stdout.close()
        self.errors.close()


def paired_rounds(sides, rounds, seconds):
    """For each side its seconds an image, a round. Every second round goes backwards. Turns are of whole cycles, and
    about as long for each side: the seconds asked for, or the longest cycle."""
    cycles = [side.seconds_per_cycle() for side in sides]
    for side, cycle in zip(sides, cycles):
        side.runs = side.cycle * max(1, round(max(seconds, *cycles) / cycle))
    times = [[] for _ in sides]
    for i in range(rounds):
        order = range(len(sides)) if i % 2 == 0 else reversed(range(len(sides)))
        for which in order:
            times[which].append(sides[which].seconds_per_image())
    return times


def ratio(numerators, denominators):
    """Median and range of the ratios of the rounds."""
    ratios = [a / b for a, b in zip(numerators, denominators)]
    return {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios), "rounds": ratios}


def ratio_text(one):
    return f"{one['median']:.3f} ({one['least']:.3f} to {one['most']:.3f})"


def images_per_second(times):
    return 1 / statistics.median(times)


def best_columns(settings):
    """Of a rival's settings the quickest: images a second, the setting, sd over it; or else why there is none."""
    measured = {setting: one for setting, one in settings.items() if "ratio" in one}
    if not measured:
        return [" ".join(one["failure"] for one in settings.values()), "", ""]
    best = max(measured, key=lambda setting: measured[setting]["images_per_second"])
    return [f"{measured[best]['images_per_second']:.2f}", best, ratio_text(measured[best]["ratio"])]


class Comparison:
    """The rows, and what they share."""

    def __init__(self, options):
        self.options = options
        self.results = []
        self.best_format = {}
        self.missing = []  # programs

    def sd_command(self, *arguments):
        return [self.options.sd_bench, *arguments]

    def pytorch_command(self, *arguments):
        return [self.options.pytorch_python, str(PYTORCH_SIDE), "--threads", str(self.options.threads), *arguments]

    @contextlib.contextmanager
    def sd_side(self, name, threads=None):
        with contextlib.closing(Side(self.sd_command("--serve", name), threads or self.options.threads)) as side:
            yield side

    def enter_rival(self, stack, command):
        return stack.enter_context(contextlib.closing(Side(command, self.options.threads)))

    def quicker_format(self, name):
        """Of PyTorch's two memory formats."""
        if name not in self.best_format:
            with contextlib.ExitStack() as stack:
                sides = [self.enter_rival(stack, self.pytorch_command(name, "--format", one)) for one in FORMATS]
                medians = [statistics.median(times) for times in paired_rounds(sides, 3, self.options.seconds)]
            self.best_format[name] = FORMATS[medians.index(min(medians))]
        return self.best_format[name]

    def rivals(self, subject):
        """The programs that a subject's rows are compared with."""
        names = ["PyTorch"]
        if self.options.compile:
            names.append("torch.compile")
        if subject == "eval_bf16":
            names += [name for name in PACKAGES if name not in self.missing]
        return names

    def commands(self, rival, name):
        """{setting: the command that runs the row with it}"""
        precision = self.options.precision
        rows = {precision: name, "float": name.replace("_bf16/", "/")}
        if rival == "OpenVINO":
            return {one: self.pytorch_command(row, "--runtime", "openvino") for one, row in rows.items()}
        if rival == "ONNX Runtime":
            return {"float": self.pytorch_command(rows["float"], "--runtime", "onnxruntime")}
        if rival == "torch.compile":
            quicker = self.quicker_format(name)
            return {f"{precision}, {quicker}": self.pytorch_command(name, "--format", quicker, "--compile")}
        formats = FORMATS if precision == "bf16" else [self.quicker_format(name)]
        return {f"{one}, {memory_format}": self.pytorch_command(row, "--format", memory_format)
                for one, row in rows.items() for memory_format in formats}

    def against_rivals(self, name):
        commands = {rival: self.commands(rival, name) for rival in self.rivals(name.partition("/")[0])}
        results = {rival: {} for rival in commands}
        with contextlib.ExitStack() as stack:
            sides = [stack.enter_context(self.sd_side(name))]
            measured = []
            for rival, settings in commands.items():
                for setting, command in settings.items():
                    try:
                        sides.append(self.enter_rival(stack, command))
                        measured.append((rival, setting))
                    except SideFailed as failure:
                        if rival == "PyTorch":
                            raise
                        results[rival][setting] = {"failure": str(failure)}
            own, *times = paired_rounds(sides, self.options.rounds, self.options.seconds)
        for (rival, setting), one in zip(measured, times):
            results[rival][setting] = {"images_per_second": images_per_second(one), "ratio": ratio(one, own)}
        columns = [name, f"{images_per_second(own):.2f}"]
        for settings in results.values():
            columns += best_columns(settings)
        return {"row": name, "sd": images_per_second(own), "rivals": results}, columns

    def peak_memory(self, name):
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.options.threads)}

        def numbers(command):
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
            return [int(number) / 1e6 for number in output.split()]

        (sd,) = numbers(self.sd_command("--peak-memory", name))
        result, rows = {"row": f"peak_memory/{name}", "sd": sd}, []
        for one in FORMATS:
            peak, libraries = numbers(self.pytorch_command(name, "--format", one, "--peak-memory"))
            result[one] = {"peak": peak, "libraries": libraries}
            rows.append([name, f"{sd:.0f}", one, f"{peak:.0f}", f"{libraries:.0f}", f"{sd / peak:.3f}",
                         f"{sd / (peak - libraries):.3f}"])
        return result, *rows

    def relative_time(self, name, base, threads=None, base_threads=None):
        with self.sd_side(name, threads) as side, self.sd_side(base, base_threads) as base_side:
            times, base_times = paired_rounds([side, base_side], self.options.rounds, self.options.seconds)
        return times, base_times

    def method_against_none(self, name, base):
        times, base_times = self.relative_time(name, base)
        result = {"row": name, "sd": images_per_second(times), "none": images_per_second(base_times),
                  "time_ratio": ratio(times, base_times)}
        return result, [name, f"{result['sd']:.2f}", f"{result['none']:.2f}", ratio_text(result["time_ratio"])]

    def two_threads(self, name):
        times, base_times = self.relative_time(name, name, 2, 1)
        result = {"row": f"threads/{name}", "two": images_per_second(times), "one": images_per_second(base_times),
                  "speedup": ratio(base_times, times)}
        return result, [name, f"{result['two']:.2f}", f"{result['one']:.2f}", ratio_text(result["speedup"])]


def print_row(columns):
    print("| " + " | ".join(columns) + " |", flush=True)


def tables(comparison, names):
    """(title of the columns, [(row, how to measure it)])"""
    model = "resnet50"
    suffix = "_bf16" if comparison.options.precision == "bf16" else ""
    train = f"train_step{suffix}"
    (plain,) = [name for name in names if name.startswith(f"{train}/{model}/none/")]
    methods = [name for method in (f"{model}/sample@0.1", f"{model}/survivors@0.5", f"{model}/block@0.5",
                                   "convnext_tiny/survivors@0.5") for name in names
               if name.startswith(f"{train}/{method}/")]
    in_memory = [plain] + [name for name in names if name.startswith(f"{train}/efficientnet_b0/none/")]

    def without_method(name):
        return re.sub("/[a-z]+@[0-9.]+/", "/none/", name)

    def compared(subject, part):
        titles = ["benchmark", "sd, images/s"]
        for rival in comparison.rivals(subject):
            titles += [f"{rival}, images/s", "with", f"sd over {rival}"]
        return titles, [(name, lambda name=name: comparison.against_rivals(name)) for name in names
                        if name.startswith(f"{subject}/") and part in name]

    return [
        compared(train, "/none/"),
        compared(f"eval{suffix}", "/"),
        (["peak resident memory of", "sd, MB", "format", "PyTorch, MB", "of that libraries, MB", "sd over PyTorch",
          "sd over PyTorch without libraries"],
         [(f"peak_memory/{name}", lambda name=name: comparison.peak_memory(name)) for name in in_memory]),
        (["benchmark", "images/s", "none, images/s", "time over none's"],
         [(name, lambda name=name: comparison.method_against_none(name, without_method(name))) for name in methods]),
        (["benchmark", "two threads, images/s", "one thread, images/s", "two over one"],
         [(f"threads/{plain}", lambda: comparison.two_threads(plain))]),
    ]


def output_of(command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def processor():
    with open("/proc/cpuinfo") as info:
        found = re.search(r"model name\s*:\s*(.*)", info.read())
    return found[1] if found else platform.machine()


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sd-bench", required=True, metavar="PROGRAM", help="./run sets it")
    parser.add_argument("--pytorch-python", required=True, metavar="PROGRAM",
                        help="a Python that has PyTorch; ./run sets it")
    parser.add_argument("--precision", choices=["float", "bf16"], default="float",
                        help="of the tensors in sd's networks (%(default)s)")
    parser.add_argument("--rows", default="", metavar="REGEX",
                        help="rows whose name has a match; --list shows the names")
    parser.add_argument("--list", action="store_true", help="print the names of the rows")
    parser.add_argument("--rounds", type=int, default=7, metavar="N",
                        help="how often each side has its turn (%(default)s)")
    parser.add_argument("--seconds", type=float, default=3, metavar="S",
                        help="about how long a turn lasts; at least one cycle of masks (%(default)s)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), metavar="N",
                        help="of both sides (%(default)s)")
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="leave torch.compile out")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="file for all figures")
    return parser.parse_args()


def main():
    options = parse_arguments()
    comparison = Comparison(options)
    names = output_of([options.sd_bench, "--precision", options.precision, "--benchmark_list_tests"]).split()
    versions = {}
    if not options.list:
        versions = json.loads(output_of(comparison.pytorch_command("--versions")))
        comparison.missing = [program for program, packages in PACKAGES.items()
                              if None in [versions[package] for package in packages]]
    chosen = [(titles, [row for row in rows if re.search(options.rows, row[0])])
              for titles, rows in tables(comparison, names)]
    if options.list:
        print("\n".join(name for _, rows in chosen for name, _ in rows))
        return
    installed = ", ".join(f"{package} {version}" for package, version in versions.items() if version)
    machine = f"{processor()}, {options.threads} threads; {installed}"
    print(f"{machine}; medians of {options.rounds} rounds, with their range")
    if options.precision == "bf16":
        for program in comparison.missing:
            print(f"{program} is left out; it needs: {options.pytorch_python} -m pip install "
                  + " ".join(PACKAGES[program]))
    for titles, rows in chosen:
        if not rows:
            continue
        print()
        print_row(titles)
        print_row(["---"] * len(titles))
        for name, measure in rows:
            print(f"{name} ...", file=sys.stderr)
            result, *lines = measure()
            comparison.results.append(result)
            for columns in lines:
                print_row(columns)
            if options.json:
                options.json.write_text(json.dumps({"machine": machine, "rows": comparison.results}, indent=1) + "\n")


if __name__ == "__main__":
    try:
        main()
    except (SideFailed, subprocess.CalledProcessError) as error:
        sys.exit(f"bench_versus_pytorch.py: {error}")
