"""Kill -9 one of two processes of a run at random moments: all must end, and the same command must go on."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from small_runs import tiny_overrides, write_course_data

from stress.child import only_run
from stress.compare import differences
from stress.figures import Figure

SECONDS = 30  # in which all processes must end
RECIPE = (
    *("model=convtrans_relu", "ema=0.9", "scheduler=cosine", "data.augment=[flip,rotate,swap]", "save_steps=5"),
    *("trainer.max_epochs=20", "trainer=ddp", "trainer.devices=2"),
)


def run(scratch: Path, *, quick: bool, seed: int = 0) -> list[Figure]:
    """Kill ten runs; quick: one."""
    root, rng = write_course_data(scratch / "data"), random.Random(seed)
    whole, bad = scratch / "whole", []
    finish(start(whole, root))
    count = 1 if quick else 10
    for number in range(count):
        folder = scratch / str(number)
        found = kill_one(start(folder, root), folder, rng)
        finish(start(folder, root))
        found += differences(only_run(whole), only_run(folder))
        print(f"kill -9 of a rank, moment {number + 1}: {found[:2] or 'identical'}", flush=True)
        bad += found[:1]
    measured = "; ".join([f"{count - len(bad)} of {count}", *bad])
    bar = f"all end within {SECONDS} s, then bit-identical to a run that was not killed"
    return [Figure("kill -9 of one of two ranks", bar, measured, not bad)]


def start(folder: Path, root: Path) -> subprocess.Popen[str]:
    """Start the run in two processes, which are marked by the folder in their environment."""
    folder.mkdir(exist_ok=True)
    line = [sys.executable, "-m", "n2n_lightning.train", *tiny_overrides(root), *RECIPE]
    environment = os.environ | {"A_MARK_OF_THIS_TEST": str(folder)}
    return subprocess.Popen(
        line, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process: subprocess.Popen[str]) -> None:
    output, _ = process.communicate()
    assert process.returncode == 0, output


def kill_one(process: subprocess.Popen[str], folder: Path, rng: random.Random) -> list[str]:
    """Kill one of the processes at a random moment after the first epoch; return what is wrong with the end."""
    assert process.stdout is not None
    for text in process.stdout:
        if text.startswith("epoch 1/"):
            break
    time.sleep(rng.uniform(0, 1))
    victims = marked(folder)
    if len(victims) == 2:
        os.kill(rng.choice(victims), signal.SIGKILL)
    ends = time.monotonic() + SECONDS
    while (left := marked(folder)) and time.monotonic() < ends:
        time.sleep(0.1)
    for orphan in left:
        os.kill(orphan, signal.SIGKILL)
    process.communicate()
    faults = [] if len(victims) == 2 else ["it had ended before"]
    return [*faults, *([f"{len(left)} processes were left"] if left else [])]


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
