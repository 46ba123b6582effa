"""Run folders as ``train.py`` leaves them, made up: the report's tests need runs, not training."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

PARAMETERS = {"unet": 991203, "nn_relu": 61971, "nn_sigmoid": 61971}
OWN_OPTIMIZER = {"unet": {"name": "adam", "lr": 0.001, "betas": [0.9, 0.99]}}
FIVE_MODELS = {
    "unet": 25.4,
    "nn_relu": 23.8,
    "nn_sigmoid": 23.2,
    "convtrans_relu": 24.1,
    "convtrans_sigmoid": 23.4,
}


def rising(best: float, epochs: int, *, first: float | None = None, speed: float = 0.6) -> list[float]:
    """A PSNR curve that comes to its end exponentially, from 3 dB below where nothing else is said."""
    first = best - 3 if first is None else first
    return [best - (best - first) * float(np.exp(-speed * epoch)) for epoch in range(epochs - 1)] + [best]


def falling(last: float, epochs: int, *, first: float = 0.04, speed: float = 0.9) -> list[float]:
    """A loss curve, likewise."""
    return [last + (first - last) * float(np.exp(-speed * epoch)) for epoch in range(epochs - 1)] + [last]


def write_run(
    folder: Path,
    model: str = "unet",
    psnr: float | None = 25.0,
    *,
    overrides: Mapping[str, str] | None = None,
    curve: Sequence[float] | None = None,
    train_loss: Sequence[float] | None = None,
    val_loss: Sequence[float] | None = None,
    epochs: int = 20,
    images: bool = True,
    **changes: Any,
) -> Path:
    """One run with plausible curves; ``changes`` replace entries of its result.json."""
    overrides = dict(overrides or {})
    optimizer = dict(OWN_OPTIMIZER.get(model, {"name": "sgd", "lr": 0.1, "momentum": 0.9}))
    if "optimizer" in overrides and overrides["optimizer"] != optimizer["name"]:
        optimizer = {"name": overrides["optimizer"], "lr": 0.01}
    data = {"name": "photos", "train_pairs": 2048, "val_pairs": 400, "draws": "fixed", "seed": 0, "fingerprint": "f00d"}
    curve = curve if curve is not None else rising(psnr or 20.0, epochs)
    result: dict[str, Any] = {
        "format": 1,
        "status": "done",
        "reason": None,
        "model": model,
        "family": "unet" if model == "unet" else "sequential",
        "overrides": overrides,
        "optimizer": optimizer,
        "scheduler": None,
        "loss": {"name": "l2"},
        "data": data,
        "train_pairs": 2048,
        "val_pairs": 400,
        "image_shape": [3, 32, 32],
        "batch_size": 64,
        "params": PARAMETERS.get(model, 38211),
        "gmac": 0.178 if model == "unet" else 0.0133,
        "epochs": len(curve),
        "max_epochs": 20,
        "monitor": "val/psnr",
        "best_epoch": len(curve),
        "val/psnr": psnr,
        "val/ssim": 0.81,
        "val/loss": 0.004,
        "noisy_psnr": 21.1,
        "images_per_second": 1234.5,
        "seconds": 321.0,
        "device": "a processor, 2 threads",
        "seed": int(overrides.get("seed", "0")),
        "versions": {"torch": "2.13.0"},
        "git_commit": "0123456789abcdef0123456789abcdef01234567",
    }
    result["config"] = {"optimizer": optimizer, "scheduler": {"name": None}, "loss": {"name": "l2"}, "data": data}
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(result | changes))
    train_loss = train_loss or falling(0.012, len(curve))
    val_loss = val_loss or falling(0.004, len(curve))
    with (folder / "metrics.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["epoch", "train/loss", "val/loss", "val/psnr", "val/ssim", "lr", "seconds"])
        for epoch, row in enumerate(zip(train_loss, val_loss, curve, strict=False), start=1):
            table.writerow([epoch, *row, 0.8, 0.001, 16.0])
    if images:
        rng = np.random.default_rng(len(folder.name))
        target = rng.integers(40, 215, (4, 1, 1, 3)) + np.linspace(-30, 30, 32).astype(int)[None, :, None, None]
        target = np.broadcast_to(target, (4, 32, 32, 3)).astype(np.uint8)
        noisy = (target + rng.normal(0, 9, target.shape)).clip(0, 255).astype(np.uint8)
        denoised = (target + rng.normal(0, 3, target.shape)).clip(0, 255).astype(np.uint8)
        np.savez(folder / "images.npz", noisy=noisy, denoised=denoised, target=target)
    return folder


def write_study(root: Path, scores: Mapping[str, float] = FIVE_MODELS, **changes: Any) -> Path:
    """A finished run of each model."""
    for model, psnr in scores.items():
        write_run(root / model, model, psnr, **changes)
    return root
