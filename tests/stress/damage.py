"""Damage checkpoints: each damage must be detected or harmless, and a run must resume from the checkpoint before."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from small_runs import tiny_overrides, write_course_data

from n2n_lightning.models.checkpoint import read_checkpoint
from n2n_lightning.models.module import DenoiserModule
from stress.child import at, kill, only_run, run_train
from stress.compare import differences, unequal
from stress.figures import Figure
from stress.kills import RECIPES, uninterrupted


def run(scratch: Path, *, quick: bool, seed: int = 0) -> list[Figure]:
    """Damage a checkpoint in 200 ways (quick: 40); then resume runs with one or both checkpoints damaged."""
    root = write_course_data(scratch / "data")
    whole, _ = uninterrupted(scratch, "adam", root)
    figures = [resumed(scratch, root, whole)]  # first, because it forks, and this process must not have computed yet
    checkpoint = whole / "checkpoints/best.ckpt"
    good, content = checkpoint.read_bytes(), read_checkpoint(checkpoint)
    rng, damaged = random.Random(seed), scratch / "damaged.ckpt"
    detected, wrong = 0, []
    count = 40 if quick else 200
    for number in range(count):
        how, data = damage(good, rng, number)
        damaged.write_bytes(data)
        try:
            differs = unequal(content, read_checkpoint(damaged))
        except ValueError:
            detected += 1
        else:
            wrong += [f"{how}: {differs[0]}"] if differs else []
    print(f"{count} damages: {detected} detected, {len(wrong)} loaded wrong", flush=True)
    harmless = f"{count - detected - len(wrong)} harmless, {len(wrong)} loaded wrong"
    measured = "; ".join([f"{detected} detected, {harmless}", *wrong])
    return [Figure(f"checkpoints damaged in {count} ways", "all detected or harmless", measured, not wrong), *figures]


def damage(good: bytes, rng: random.Random, number: int) -> tuple[str, bytes]:
    """Truncate, flip a bit, or overwrite some bytes by zeros or by bytes from elsewhere in the file."""
    place = rng.randrange(len(good))
    length = min(rng.choice((1, 16, 512, 4096)), len(good) - place)
    kind = ("truncated", "flipped", "flipped", "zeros", "spliced")[number % 5]
    if kind == "truncated":
        data = good[:place]
    elif kind == "flipped":
        data = good[:place] + bytes([good[place] ^ 1 << rng.randrange(8)]) + good[place + 1 :]
    else:
        other = rng.randrange(len(good) - length)
        filling = bytes(length) if kind == "zeros" else good[other : other + length]
        data = good[:place] + filling + good[place + length :]
    return f"{kind} at {place} of {len(good)}", data


def resumed(scratch: Path, root: Path, whole: Path) -> Figure:
    """Kill a run and damage its last checkpoint: the one before must be used. Damage both: the run must be refused."""
    line, folder = [*RECIPES["adam"], *tiny_overrides(root)], scratch / "case"
    folder.mkdir()
    assert run_train(line, folder, at(DenoiserModule, DenoiserModule.training_step, 32, kill)).code == -9
    run_folder = only_run(folder)
    last = run_folder / "checkpoints/last.ckpt"
    data = last.read_bytes()
    middle = len(data) // 2
    last.write_bytes(data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :])
    both = scratch / "both"
    shutil.copytree(folder, both)
    for path in only_run(both).glob("checkpoints/*.ckpt"):
        path.write_bytes(path.read_bytes()[:-100])
    ending = run_train(line, folder)
    warned = "warning:" in ending.output and "last.ckpt is damaged" in ending.output
    found = differences(whole, run_folder) if ending.code == 0 else [ending.output[-300:]]
    refused = run_train(line, both)
    plain = refused.code == 2 and "Traceback" not in refused.output and refused.output.count("error:") == 1
    met = warned and not found and plain
    said = "identical, with a warning" if warned and not found else f"{'; '.join(found[:3])}, warned: {warned}"
    measured = f"{said}; both damaged: exit code {refused.code}"
    bar = "identical from the one before, with a warning; both damaged: refused with one message"
    return Figure("a run whose last checkpoint has a flipped bit", bar, measured, met)
