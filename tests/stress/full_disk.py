"""Let the disk be full from some write on: one message, nothing lost, and the same command resumes the run."""

from __future__ import annotations

import shutil
from pathlib import Path

from small_runs import tiny_overrides, write_course_data

from n2n_lightning.system.safe_load import safe_load
from stress.child import disk_full_from, only_run, run_train
from stress.compare import differences
from stress.figures import Figure
from stress.kills import RECIPES, uninterrupted


def run(scratch: Path, *, quick: bool, seed: int = 0) -> list[Figure]:
    """Try ten moments, spread over a run's writes; quick: two."""
    root = write_course_data(scratch / "data")
    whole, _ = uninterrupted(scratch, "adam", root)
    moments = (40, 600) if quick else (3, 12, 30, 60, 120, 250, 400, 600, 800, 1000)
    bad = []
    for number in moments:
        found = one_case(scratch, root, number, whole)
        print(f"disk full from write {number} on: {'; '.join(found) or 'identical in the end'}", flush=True)
        bad += [f"write {number}: {found[0]}"] if found else []
    measured = "; ".join([f"{len(moments) - len(bad)} of {len(moments)} went on to the same end", *bad])
    bar = "one message, nothing lost, the same end after the same command"
    return [Figure(f"disk full at {len(moments)} moments", bar, measured, not bad)]


def one_case(scratch: Path, root: Path, number: int, whole: Path) -> list[str]:
    """Fill the disk from the ``number``-th write on, run the same command again, and return what is wrong."""
    folder = scratch / "case"
    folder.mkdir()
    line = [*RECIPES["adam"], *tiny_overrides(root)]
    try:
        ending = run_train(line, folder, disk_full_from(number))
        errors = ending.output.count("error:")
        found = [] if (ending.code, errors) == (1, 1) else [f"exit code {ending.code}, {errors} messages"]
        found += ["a traceback"] if "Traceback" in ending.output else []
        for path in folder.glob("outputs/*/*/checkpoints/*.ckpt"):
            safe_load(path)
        again = run_train(line, folder)
        if again.code != 0:
            return [*found, f"again: exit code {again.code}: {again.output[-300:]}"]
        return found + differences(whole, only_run(folder))
    finally:
        shutil.rmtree(folder)
