"""Measure how long it takes until training starts: ``python -m benchmarks.startup``.

It measures CPU time of ``train --help``, and seconds from launch to the end of the first training step with the data
set in the cache. For comparison, it measures ``import pytorch_lightning`` and ``import torch`` alone. Each runs in a
new process, in turns.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict

from benchmarks.measuring import machine, save
from benchmarks.tables import show

IMPORT = "import {}, os, time; print('TIMES', time.time() - float(os.environ['LAUNCHED']), flush=True); os._exit(0)"
FIRST = ("launch to first step's start", "launch to first step's end")
PROBES = {  # what is timed -> arguments of Python
    ("import torch",): ["-c", IMPORT.format("torch")],
    ("import pytorch_lightning",): ["-c", IMPORT.format("pytorch_lightning")],
    ("train --help",): ["-m", "n2n_lightning.train", "--help"],
    FIRST: ["-m", "benchmarks.first_step", "resume=false"],
}


def run(arguments: list[str], folder: str) -> tuple[list[float], float]:
    """Run a new Python; return the seconds since launch that it prints, or until its end, and its CPU seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.time()
    environment = os.environ | {"LAUNCHED": str(started)}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, check=True, capture_output=True, text=True
    )
    ended = time.time() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    printed = re.search(r"^TIMES (.+)$", done.stdout, re.MULTILINE)
    return [float(clock) for clock in printed[1].split()] if printed else [ended], used


def measure(rounds: int, overrides: list[str]) -> dict[str, dict[str, float]]:
    """Return for each name the medians of ``seconds`` and ``cpu``, without the first round, which fills caches."""
    seconds: dict[str, list[float]] = defaultdict(list)
    cpu: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(rounds + 1):
            for names, arguments in PROBES.items():
                clocks, used = run([*arguments, *(overrides if names == FIRST else [])], folder)
                for name, clock in zip(names, clocks, strict=True):
                    seconds[name] += [clock] if turn else []
                    cpu[name] += [used] if turn else []
    return {
        name: {"seconds": statistics.median(times), "cpu": statistics.median(cpu[name])}
        for name, times in seconds.items()
    }


def imports(statement: str) -> dict[str, float]:
    """Return the seconds of the modules of each top-level package, and of torch's compiler; the 12 longest."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", statement], check=True, capture_output=True, text=True
    )
    found: dict[str, float] = defaultdict(float)
    for own, name in re.findall(r"import time: +(\d+) \| +\d+ \| +(\S+)", done.stderr):
        part = "torch._dynamo" if name.startswith("torch._dynamo") else name.partition(".")[0]
        found[part] += int(own) / 1e6
    return dict(sorted(found.items(), key=lambda item: -item[1])[:12])


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure start-up: --help, imports, launch to first step.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("overrides", nargs="*", help="overrides of the run; default: model=convtrans_relu")
    args = parser.parse_args()
    found = measure(args.rounds, args.overrides or ["model=convtrans_relu"])
    print(f"{machine()}; medians of {args.rounds}")
    times = ((name, f"{t['seconds']:.2f}", f"{t['cpu']:.2f}") for name, t in found.items())
    show(["", "seconds", "CPU seconds"], times)
    base = found["import pytorch_lightning"]["seconds"]
    over = {name: found[name]["seconds"] - base for name in FIRST}
    for name, seconds in over.items():
        print(f"{name}: {seconds:+.2f} s over import pytorch_lightning")
    parts = imports("import pytorch_lightning")
    print("import pytorch_lightning, by package:", ", ".join(f"{name} {s:.2f}" for name, s in parts.items()))
    save("startup", {"times": found, "over_import": over, "imports": parts})


if __name__ == "__main__":
    main()
