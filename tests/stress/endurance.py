"""Train many runs in one process: neither memory nor the number of open files may grow."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from small_runs import tiny_overrides, write_course_data

from benchmarks.measuring import resident_mb
from n2n_lightning import train
from stress.child import run_train
from stress.figures import Figure

SAMPLES = "endurance.json"
MAX_GROWTH = 0.03


def run(scratch: Path, *, quick: bool, seed: int = 0) -> list[Figure]:
    """Compare the 5th and the 30th of 30 jobs; quick: the 2nd and the 4th of 4, without a bar for memory."""
    jobs, first = (4, 2) if quick else (30, 5)
    root = write_course_data(scratch / "data")
    seeds = ",".join(str(seed + number) for number in range(jobs))
    line = ["-m", "model=convtrans_relu", "trainer.max_epochs=1", f"seed={seeds}", *tiny_overrides(root)]
    ending = run_train(line, scratch, measure_after_every_job)
    assert ending.code == 0, ending.output
    samples: list[dict[str, Any]] = json.loads((scratch / SAMPLES).read_text())
    assert len(samples) == jobs
    for number, sample in enumerate(samples, 1):
        print(f"endurance: job {number}, {sample['mb']:.1f} MB, {len(sample['files'])} files", flush=True)
    before, after = samples[first - 1], samples[-1]
    growth = after["mb"] / before["mb"] - 1
    left = sorted((Counter(after["files"]) - Counter(before["files"])).elements())
    left += [path for path in after["files"] if str(scratch / "outputs") in path]
    sizes = f"{growth:+.2%}, from {before['mb']:.0f} to {after['mb']:.0f} MB"
    bar = "reported" if quick else f"under {MAX_GROWTH:.0%}"
    opened = f"{len(before['files'])} and {len(after['files'])} open"
    return [
        Figure(f"resident memory from job {first} to {jobs}", bar, sizes, quick or growth < MAX_GROWTH),
        Figure(f"open files after job {first} and {jobs}", "none left", "; ".join([opened, *left]), not left),
    ]


def measure_after_every_job() -> None:
    """Let the ``train`` command of this process write down its memory and its open files after every job."""
    run_job, samples = train.run_job, []

    def observed(*args: Any) -> Any:
        outcome = run_job(*args)
        samples.append({"mb": resident_mb("VmRSS"), "files": open_files()})
        Path(SAMPLES).write_text(json.dumps(samples))
        return outcome

    train.run_job = observed  # type: ignore[assignment]  # passes everything on


def open_files() -> list[str]:
    """Return what the open descriptors of this process lead to, without the one that lists them."""
    return sorted(os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_symlink())
