"""Shared parts of the benchmarks: configurations, ratios with their quartiles, memory, and the output of results."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir

from n2n_lightning.system import hydra_app
from n2n_lightning.system.atomic import write_json
from n2n_lightning.system.folders import config_folder
from n2n_lightning.training.run_metadata import device_name


def configuration(*overrides: str) -> dict[str, Any]:
    """Return the configuration that ``train`` would run with these overrides."""
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return hydra_app.resolve_config(compose("train", list(overrides)))


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """Return the median and the quartiles of ours divided by theirs, pair by pair."""
    low, middle, high = statistics.quantiles([a / b for a, b in zip(ours, theirs, strict=True)], n=4)
    return {"ratio": middle, "quartiles": [low, high]}


def ratio_text(found: dict[str, Any]) -> str:
    low, high = found["quartiles"]
    return f"{found['ratio']:.3f} ({low:.3f} to {high:.3f})"


def resident_mb(field: str) -> float:
    """Return this process's resident memory from Linux: "VmRSS" is the present one, "VmHWM" the peak."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith(field)) / 1024


def forget_peak() -> None:
    """Restart the measurement of the peak, "VmHWM"."""
    Path("/proc/self/clear_refs").write_text("5")


def machine() -> str:
    return f"{device_name()}, torch {torch.__version__}"


def save(name: str, content: dict[str, Any]) -> None:
    """Write ``outputs/benchmarks/<name>.json`` and print its path."""
    path = Path("outputs/benchmarks") / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"machine": machine(), **content})
    print(path)
