"""Kill a sweep, one of whose jobs fails, twice: the same command must finish it, and train nothing twice."""

from __future__ import annotations

import random
import re
from pathlib import Path

from small_runs import read_json, tiny_overrides, write_course_data

from n2n_lightning.models.module import DenoiserModule
from stress.child import at, kill, run_train
from stress.figures import Figure

RATES = ("0.05", "0.06", "1e30", "0.07", "0.08", "0.1")  # one is far too high
STEPS = 12  # steps of an epoch of the tiny data
Stamps = dict[Path, int]


def run(scratch: Path, *, quick: bool, seed: int = 0) -> list[Figure]:
    """Run six jobs with two kills at random steps; quick: jobs of one epoch instead of three."""
    epochs = 1 if quick else 3
    root = write_course_data(scratch / "data")
    line = ["-m", "model=convtrans_relu", f"optimizer.lr={','.join(RATES)}", f"trainer.max_epochs={epochs}"]
    rng = random.Random(seed)
    kept: Stamps = {}
    wrong = []
    for number in (1, 2):
        jobs = rng.uniform(1.1, 1.9)  # trained since the last kill
        trap = at(DenoiserModule, DenoiserModule.training_step, round(jobs * STEPS * epochs), kill)
        ending = run_train([*line, *tiny_overrides(root)], scratch, trap)
        wrong += [] if ending.code == -9 else [f"kill {number} came too late"]
        kept |= finished(scratch)
        print(f"sweep: killed after {jobs:.2f} jobs, {len(statuses(scratch, 'done', 'dead'))} finished", flush=True)
    last = run_train([*line, *tiny_overrides(root)], scratch)
    states = re.findall(r"^(done|dead|skipped|failed|refused|interrupted) +convtrans", last.output, re.MULTILINE)
    done, failed = statuses(scratch, "done", "dead"), statuses(scratch, "failed")
    log = re.search(r"^failed .*lower optimizer\.lr.*?(\S+) has the traceback", last.output, re.MULTILINE)
    wrong += [] if len(states) == len(RATES) else [f"the table has {len(states)} jobs"]
    wrong += [] if log and (scratch / log[1]).is_file() else ["no reason and log of the failure"]
    wrong += [f"{path.name} of a finished run was written again" for path, at in kept.items() if stamp(path) != at]
    measured = f"{len(done)} done, {len(failed)} failed, exit code {last.code}, {len(kept)} files untouched"
    good = (len(done), len(failed), last.code) == (5, 1, 1) and bool(kept)
    bar = "5 done, 1 failed with reason and log, none trained twice, table of 6, exit code 1"
    return [Figure("a sweep of 6, one fails, kill -9 twice", bar, "; ".join([measured, *wrong]), good and not wrong)]


def statuses(scratch: Path, *wanted: str) -> list[Path]:
    """Return the folders of the runs with these statuses."""
    found = scratch.glob("outputs/*/*/result.json")
    return [path.parent for path in found if read_json(path)["status"] in wanted]


def finished(scratch: Path) -> Stamps:
    """Return the files of the finished runs, and when each was written."""
    files = [path for folder in statuses(scratch, "done", "dead") for path in folder.rglob("*") if path.is_file()]
    return {path: stamp(path) for path in files if path.name != ".lock"}


def stamp(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else -1
