"""A sweep with a job that fails, killed twice: the same command finishes it, and trains nothing twice."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

from n2n_lightning.models.module import DenoiserModule
from stress.child import at, kill, run_train
from stress.figures import Figure
from stress.tiny_data import overrides, write_course_data

RATES = ("0.05", "0.06", "1e30", "0.07", "0.08", "0.1")  # one is absurd
STEPS = 12  # in an epoch of the tiny data
Stamps = dict[Path, int]


def run(scratch: Path, *, quick: bool, seed: int = 0) -> list[Figure]:
    """Six jobs and two kills at random steps; quick: of one epoch each instead of three."""
    epochs = 1 if quick else 3
    root = write_course_data(scratch / "data")
    line = ["-m", "model=convtrans_relu", f"optimizer.lr={','.join(RATES)}", f"trainer.max_epochs={epochs}"]
    rng = random.Random(seed)
    kept: Stamps = {}
    wrong = []
    for number in (1, 2):
        jobs = rng.uniform(1.1, 1.9)  # of those that train, since the last kill
        strike = at(DenoiserModule, "training_step", round(jobs * STEPS * epochs), kill)
        ending = run_train([*line, *overrides(root)], scratch, strike)
        wrong += [] if ending.code == -9 else [f"kill {number} came too late"]
        kept |= finished(scratch)
        print(f"sweep: killed after {jobs:.2f} jobs, {len(statuses(scratch, 'done', 'dead'))} finished", flush=True)
    last = run_train([*line, *overrides(root)], scratch)
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
    """The folders of the runs with these statuses."""
    found = scratch.glob("outputs/*/*/result.json")
    return [path.parent for path in found if json.loads(path.read_text())["status"] in wanted]


def finished(scratch: Path) -> Stamps:
    """The files of the runs that have ended well."""
    files = [path for folder in statuses(scratch, "done", "dead") for path in folder.rglob("*") if path.is_file()]
    return {path: stamp(path) for path in files if path.name != ".lock"}


def stamp(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else -1
