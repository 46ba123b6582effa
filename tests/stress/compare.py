"""Compare the results of two runs, bit for bit."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from small_runs import DROPPED, timeless_table
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

TIMED = {*DROPPED, "epoch_seconds", "trained"}  # what the machine and the checkout decide


def differences(one: Path, other: Path) -> list[str]:
    """Return what differs between the folders of two finished runs, apart from times."""
    found = []
    for name in ("best.ckpt", "last.ckpt"):
        first, second = (
            torch.load(folder / "checkpoints" / name, map_location="cpu", weights_only=True) for folder in (one, other)
        )
        found += [f"{name}: {where}" for where in unequal(first, second)]
    if timeless_table(one) != timeless_table(other):
        found.append("metrics.csv")
    first, second = (json.loads((folder / "result.json").read_text()) for folder in (one, other))
    found += [f"result.json: {where}" for where in unequal(first, second)]
    found += [f"TensorBoard: {where}" for where in unequal(events(one), events(other))]
    left = sorted(path.name for path in other.rglob("*.part"))
    return found + [f"left behind: {name}" for name in left]


def events(folder: Path) -> dict[str, list[Any]]:
    """Return what TensorBoard shows: the steps and values of each scalar, the steps and bytes of each picture."""
    shown = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    shown.Reload()
    scalars = {tag: [(e.step, repr(e.value)) for e in shown.Scalars(tag)] for tag in shown.Tags()["scalars"]}
    images = {tag: [(e.step, e.encoded_image_string) for e in shown.Images(tag)] for tag in shown.Tags()["images"]}
    return scalars | images


def unequal(one: Any, other: Any, where: str = "") -> list[str]:
    """Return the places at which two nested values differ, without the keys of ``TIMED``."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        same = one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)
        return [] if same else [where]
    if isinstance(one, dict) and isinstance(other, dict):
        keys = [key for key in one.keys() | other.keys() if key not in TIMED]
        return [
            place
            for key in sorted(keys, key=str)
            for place in (
                unequal(one[key], other[key], f"{where}.{key}") if key in one and key in other else [f"{where}.{key}"]
            )
        ]
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)) and len(one) == len(other):
        return [
            place
            for number, both in enumerate(zip(one, other, strict=True))
            for place in unequal(*both, f"{where}[{number}]")
        ]
    both_nan = isinstance(one, float) and isinstance(other, float) and math.isnan(one) and math.isnan(other)
    return [] if both_nan or one == other else [where]
