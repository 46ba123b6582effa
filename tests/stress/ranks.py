"""End one of two processes of a run at random moments: all must end, and the same command must go on."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from small_runs import tiny_overrides, write_course_data

from benchmarks.rank_results import largest_difference
from stress.child import only_run
from stress.compare import differences
from stress.figures import Figure

SECONDS = 30  # in which all processes must end
CLOSE = 1e-5  # of each tensor's largest value
RECIPE = (
    *("model=convtrans_relu", "ema=0.9", "scheduler=cosine", "data.augment=[flip,rotate,swap]", "save_steps=5"),
    "trainer.max_epochs=20",
)
TWO = ("trainer=ddp", "trainer.devices=2")


def run(scratch: Path, *, quick: bool, seed: int = 0) -> list[Figure]:
    """Kill ten runs and end six by a signal, half of them while they start; quick: kill one."""
    root, rng = write_course_data(scratch / "data"), random.Random(seed)
    whole, began = scratch / "whole", time.monotonic()
    process = start(whole, root)
    wait_for_epoch(process)
    startup = time.monotonic() - began
    finish(process)
    bars = {
        signal.SIGKILL: ("kill -9 of one of two ranks", 10, "bit-identical to a run that was not killed"),
        signal.SIGTERM: ("SIGTERM to the first of two ranks", 6, "bit-identical to a run that got none"),
    }
    figures = []
    for number, (measure, count, identical) in list(bars.items())[: 1 if quick else None]:
        bad: list[str] = []
        tried, slowest = 1 if quick else count, 0.0
        for case in range(tried):
            folder = scratch / f"{number.name}{case}"
            delay = rng.uniform(0, startup) if case % 2 else None
            found, seconds = end_one(start(folder, root), folder, number, delay, rng)
            slowest = max(slowest, seconds)
            found += resume_with_one(whole, folder, root) if delay is None and number == signal.SIGKILL else []
            finish(start(folder, root))
            found += differences(only_run(whole), only_run(folder))
            when = "in training" if delay is None else f"{delay:.1f} s after its start"
            print(f"{measure}, {when}: ended in {seconds:.1f} s, {found[:2] or 'identical'}", flush=True)
            bad += found[:1]
        measured = "; ".join([f"{tried - len(bad)} of {tried}, in at most {slowest:.0f} s", *bad])
        figures.append(Figure(measure, f"all end within {SECONDS} s, then {identical}", measured, not bad))
    return figures


def start(folder: Path, root: Path, devices: tuple[str, ...] = TWO) -> subprocess.Popen[str]:
    """Start the run, in two processes, which are marked by the folder in their environment."""
    folder.mkdir(exist_ok=True)
    line = [sys.executable, "-m", "n2n_lightning.train", *tiny_overrides(root), *RECIPE, *devices]
    environment = os.environ | {"A_MARK_OF_THIS_TEST": str(folder)}
    return subprocess.Popen(
        line, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process: subprocess.Popen[str]) -> None:
    output, _ = process.communicate()
    assert process.returncode == 0, output


def wait_for_epoch(process: subprocess.Popen[str]) -> None:
    """Wait until the first epoch has ended."""
    assert process.stdout is not None
    for text in process.stdout:
        if text.startswith("epoch 1/"):
            return


def end_one(
    process: subprocess.Popen[str], folder: Path, number: signal.Signals, delay: float | None, rng: random.Random
) -> tuple[list[str], float]:
    """Send a signal to one of the processes; return what is wrong with the end, and how many seconds it took.

    Args:
        process: the first rank, which has started the other one.
        folder: marks them.
        number: SIGKILL goes to any of them, another signal to the first.
        delay: seconds until then; None is a random moment after the first epoch.
        rng: chooses.
    """
    if delay is None:
        wait_for_epoch(process)
    time.sleep(rng.uniform(0, 1) if delay is None else delay)
    victims = marked(folder)
    running = len(victims) == 2 or bool(victims and delay is not None)
    if running:
        os.kill(rng.choice(victims) if number == signal.SIGKILL else process.pid, number)
    began = time.monotonic()
    while (left := marked(folder)) and time.monotonic() < began + SECONDS:
        time.sleep(0.1)
    seconds = time.monotonic() - began
    for orphan in left:
        os.kill(orphan, signal.SIGKILL)
    process.communicate()
    faults = [] if running else ["it had ended before"]
    if number == signal.SIGTERM and process.returncode not in (143, -signal.SIGTERM):
        faults.append(f"exit code {process.returncode}")
    return [*faults, *([f"{len(left)} processes were left"] if left else [])], seconds


def resume_with_one(whole: Path, folder: Path, root: Path) -> list[str]:
    """Go on with one process in a copy of the folder; return what is wrong with its weights."""
    copy = folder.with_name(f"{folder.name}_one")
    shutil.copytree(folder, copy)
    finish(start(copy, root, ()))
    found = largest_difference(only_run(whole), only_run(copy))
    print(f"went on with one process: weights differ by {found:.1e} of their largest value", flush=True)
    return [f"with one process, weights differ by {found:.1e}"] if found > CLOSE else []


def marked(folder: Path) -> list[int]:
    """Return the live processes whose environment names the folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            state = (path.parent / "stat").read_text().rpartition(")")[2].split()[0]
            if state != "Z" and f"A_MARK_OF_THIS_TEST={folder}\0".encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:  # it has just ended, or is another user's
            continue
    return found
