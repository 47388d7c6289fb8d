#!/usr/bin/env python3
"""Measures what the library costs to compile and prints a table in Markdown.

    tools/compile_times.py [--repeat 3] [--compilers g++ clang++]

Times are the compiler's own processor time, the least of the repetitions; memory is its largest resident size.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
OPTIMISED = ["-O3", "-march=native", "-fopenmp"]


def programs(folder):
    """(name, source, options) of everything to compile."""
    for name, text in [
        ("empty program", ""),
        ("Eigen/Core", "#include <Eigen/Core>\n"),
        ("Eigen/Core and Tensor", "#include <Eigen/Core>\n#include <unsupported/Eigen/CXX11/Tensor>\n"),
        ("sd/core/tensor.hpp", "#include <sd/core/tensor.hpp>\n"),
        ("sd/sd.hpp", "#include <sd/sd.hpp>\n"),
        ("sd/training.hpp", "#include <sd/training.hpp>\n"),
        ("sd/eigen.hpp", "#include <sd/eigen.hpp>\n"),
    ]:
        source = pathlib.Path(folder) / "program.cpp"
        source.write_text(text + "int main() {}\n")
        yield f"`{name}`" if "/" in name else name, source, []
        if name == "sd/sd.hpp":
            yield f"`{name}`, -O3", source, OPTIMISED
    for source in sorted((ROOT / "examples").glob("*.cpp")):
        options = mpi_options() if "sd/mpi/" in source.read_text() else []
        if options is not None:
            yield f"`examples/{source.name}`, -O3", source, OPTIMISED + options


def mpi_options():
    """What a program that includes MPI is compiled with, None if there is no Open MPI."""
    if shutil.which("mpicxx") is None:
        return None
    shown = subprocess.run(["mpicxx", "--showme:compile"], capture_output=True, text=True, check=False)
    return shown.stdout.split() if shown.returncode == 0 else None


def measure(compiler, source, options):
    """Processor seconds and MiB of one compilation."""
    command = [compiler, "-std=c++20", *options, f"-I{ROOT}/include", "-isystem", "/usr/include/eigen3"]
    environment = dict(os.environ, CCACHE_DISABLE="1")
    process = subprocess.Popen([*command, "-c", str(source), "-o", os.devnull], env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise SystemExit(f"{compiler} could not compile {source}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--compilers", nargs="+", default=["g++", "clang++"])
    arguments = parser.parse_args()
    print("| program |" + "".join(f" {compiler}, s | MiB |" for compiler in arguments.compilers))
    print("|---|" + "---:|---:|" * len(arguments.compilers))
    with tempfile.TemporaryDirectory() as folder:
        for name, source, options in programs(folder):
            cells = []
            for compiler in arguments.compilers:
                runs = [measure(compiler, source, options) for _ in range(arguments.repeat)]
                cells += [f"{min(seconds for seconds, _ in runs):.1f}", f"{max(size for _, size in runs):.0f}"]
            print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
