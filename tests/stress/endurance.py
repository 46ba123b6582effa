"""Thirty runs in one process: neither memory nor open files may grow with them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from stress.figures import Figure
from stress.tiny_data import overrides, write_course_data

SAMPLES = "endurance.json"
MAX_GROWTH = 0.03


def run(scratch: Path, *, quick: bool, seed: int = 0) -> list[Figure]:
    """Thirty jobs, compared from the fifth on; quick: eight, from the fourth on, without a bar for memory."""
    jobs, first = (8, 4) if quick else (30, 5)
    root = write_course_data(scratch / "data")
    seeds = ",".join(str(seed + number) for number in range(jobs))
    line = ["-m", "model=convtrans_relu", "trainer.max_epochs=1", f"seed={seeds}", *overrides(root)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, Path(__file__).parents[1:3]))}
    process = subprocess.run(
        [sys.executable, "-m", "stress.endurance", *line],
        cwd=scratch,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    samples: list[dict[str, Any]] = json.loads((scratch / SAMPLES).read_text())
    assert len(samples) == jobs
    for number, sample in enumerate(samples, 1):
        print(f"endurance: job {number}, {sample['bytes'] / 1e6:.1f} MB, {len(sample['files'])} files", flush=True)
    before, after = samples[first - 1], samples[-1]
    growth = after["bytes"] / before["bytes"] - 1
    left = sorted((Counter(after["files"]) - Counter(before["files"])).elements())
    left += [path for path in after["files"] if str(scratch) in path]
    sizes = f"{growth:+.2%}, from {before['bytes'] / 1e6:.0f} to {after['bytes'] / 1e6:.0f} MB"
    bar = "reported" if quick else f"under {MAX_GROWTH:.0%}"
    opened = f"{len(before['files'])} and {len(after['files'])} open"
    return [
        Figure(f"resident memory from job {first} to {jobs}", bar, sizes, quick or growth < MAX_GROWTH),
        Figure(f"open files after job {first} and {jobs}", "none left", "; ".join([opened, *left]), not left),
    ]


def main() -> int:
    """The ``train`` command, with a look at this process after every job."""
    from n2n_lightning import train

    run_job, samples = train.run_job, []

    def observed(*args: Any) -> Any:
        outcome = run_job(*args)
        samples.append({"bytes": resident_bytes(), "files": open_files()})
        return outcome

    train.run_job = observed  # type: ignore[assignment]  # passes everything on
    code = train.main()
    Path(SAMPLES).write_text(json.dumps(samples))
    return code


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_files() -> list[str]:
    """What the descriptors of this process lead to; the one of the listing is closed by then."""
    return sorted(os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_symlink())


if __name__ == "__main__":
    sys.exit(main())
