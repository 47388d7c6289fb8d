#!/usr/bin/env python3
"""sd against PyTorch on the same cores, and sd's methods against its own plain training.

    ./run bench --versus-pytorch [--rows REGEX] [--rounds N] [--seconds S] [--threads N] [--no-compile] [--json FILE]

Both sides stay alive and run in turn, a few seconds each, so that whatever else the machine does meets both. A round
gives one ratio; what is printed is the median of the rounds and their range. PyTorch runs contiguous and channels_last
first, and the quicker of the two is what is compared.
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


class Comparison:
    """The rows, and what they share."""

    def __init__(self, options):
        self.options = options
        self.results = []
        self.best_format = {}

    def sd_command(self, *arguments):
        return [self.options.sd_bench, *arguments]

    def pytorch_command(self, *arguments):
        return [self.options.pytorch_python, str(PYTORCH_SIDE), "--threads", str(self.options.threads), *arguments]

    @contextlib.contextmanager
    def sd_side(self, name, threads=None):
        with contextlib.closing(Side(self.sd_command("--serve", name), threads or self.options.threads)) as side:
            yield side

    @contextlib.contextmanager
    def pytorch_side(self, name, *arguments):
        with contextlib.closing(Side(self.pytorch_command(name, *arguments), self.options.threads)) as side:
            yield side

    def quicker_format(self, name):
        """Of PyTorch's two memory formats."""
        if name not in self.best_format:
            with contextlib.ExitStack() as stack:
                sides = [stack.enter_context(self.pytorch_side(name, "--format", one)) for one in FORMATS]
                medians = [statistics.median(times) for times in paired_rounds(sides, 3, self.options.seconds)]
            self.best_format[name] = FORMATS[medians.index(min(medians))]
        return self.best_format[name]

    def against_pytorch(self, name):
        memory_format = self.quicker_format(name)
        result = {"row": name, "format": memory_format}
        with contextlib.ExitStack() as stack:
            sides = [stack.enter_context(self.sd_side(name)),
                     stack.enter_context(self.pytorch_side(name, "--format", memory_format))]
            if self.options.compile:
                try:
                    sides.append(stack.enter_context(self.pytorch_side(name, "--format", memory_format, "--compile")))
                except SideFailed as failure:
                    result["compile_failure"] = str(failure)
            times = paired_rounds(sides, self.options.rounds, self.options.seconds)
        for side, own in zip(("sd", "pytorch", "pytorch_compile"), times):
            result[side] = images_per_second(own)
            if side != "sd":
                result[side + "_ratio"] = ratio(own, times[0])
        columns = [name, f"{result['sd']:.2f}", f"{result['pytorch']:.2f}", memory_format,
                   ratio_text(result["pytorch_ratio"])]
        if "pytorch_compile" in result:
            columns += [f"{result['pytorch_compile']:.2f}", ratio_text(result["pytorch_compile_ratio"])]
        else:
            columns += [result.get("compile_failure", "not asked for"), ""]
        return result, columns

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
    (plain,) = [name for name in names if name.startswith(f"train_step/{model}/none/")]
    methods = [name for method in (f"{model}/sample@0.1", f"{model}/survivors@0.5", f"{model}/block@0.5",
                                   "convnext_tiny/survivors@0.5") for name in names
               if name.startswith(f"train_step/{method}/")]
    compared = [name for name in names if "/none/" in name or name.startswith("eval/")]
    in_memory = [plain] + [name for name in names if name.startswith("train_step/efficientnet_b0/none/")]

    def without_method(name):
        return re.sub("/[a-z]+@[0-9.]+/", "/none/", name)

    return [
        (["benchmark", "sd, images/s", "PyTorch, images/s", "format", "sd over PyTorch", "torch.compile, images/s",
          "sd over torch.compile"], [(name, lambda name=name: comparison.against_pytorch(name)) for name in compared]),
        (["peak resident memory of", "sd, MB", "format", "PyTorch, MB", "of that libraries, MB", "sd over PyTorch",
          "sd over PyTorch without libraries"],
         [(f"peak_memory/{name}", lambda name=name: comparison.peak_memory(name)) for name in in_memory]),
        (["benchmark", "images/s", "none, images/s", "time over none's"],
         [(name, lambda name=name: comparison.method_against_none(name, without_method(name))) for name in methods]),
        (["benchmark", "two threads, images/s", "one thread, images/s", "two over one"],
         [(f"threads/{plain}", lambda: comparison.two_threads(plain))]),
    ]


def processor():
    with open("/proc/cpuinfo") as info:
        found = re.search(r"model name\s*:\s*(.*)", info.read())
    return found[1] if found else platform.machine()


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sd-bench", required=True, metavar="PROGRAM", help="./run sets it")
    parser.add_argument("--pytorch-python", required=True, metavar="PROGRAM",
                        help="a Python that has PyTorch; ./run sets it")
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
    listed = subprocess.run([options.sd_bench, "--benchmark_list_tests"], check=True, stdout=subprocess.PIPE, text=True)
    comparison = Comparison(options)
    chosen = [(titles, [row for row in rows if re.search(options.rows, row[0])])
              for titles, rows in tables(comparison, listed.stdout.split())]
    if options.list:
        print("\n".join(name for _, rows in chosen for name, _ in rows))
        return
    versions = subprocess.run([options.pytorch_python, str(PYTORCH_SIDE), "--versions"], check=True,
                              stdout=subprocess.PIPE, text=True)
    machine = f"{processor()}, {options.threads} threads; {versions.stdout.strip()}"
    print(f"{machine}; medians of {options.rounds} rounds, with their range")
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
