"""Run folders with made-up results, like those of ``train``: the tests of the report need runs, but no training."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

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
USUAL_COLUMNS = ("epoch", "train/loss", "val/loss", "val/psnr", "val/ssim", "lr", "seconds")
Kind = Literal["clean", "pairs", "single"]  # what there is to validate on: clean images, noisy pairs, noisy images
MONITORS = {"clean": "val/psnr", "pairs": "val/psnr_pairs", "single": "val/loss"}
NOISY = {"clean": {"noisy_psnr": 21.1}, "pairs": {"noisy_psnr_pairs": 21.1}, "single": {}}


def rising(best: float, epochs: int, *, first: float | None = None, speed: float = 0.6) -> list[float]:
    """Return a PSNR curve that approaches its end exponentially, by default from 3 dB below."""
    first = best - 3 if first is None else first
    return [best - (best - first) * float(np.exp(-speed * epoch)) for epoch in range(epochs - 1)] + [best]


def falling(last: float, epochs: int, *, first: float = 0.04, speed: float = 0.9) -> list[float]:
    """Return a loss curve that approaches its end exponentially."""
    return [last + (first - last) * float(np.exp(-speed * epoch)) for epoch in range(epochs - 1)] + [last]


def write_run(
    folder: Path,
    model: str = "unet",
    psnr: float = 25.0,
    *,
    kind: Kind = "clean",
    overrides: Mapping[str, str] | None = None,
    curve: Sequence[float] | None = None,
    train_loss: Sequence[float] | None = None,
    val_loss: Sequence[float] | None = None,
    epochs: int = 20,
    images: bool = True,
    **changes: Any,
) -> Path:
    """Write a run with plausible curves; ``changes`` replace entries of its result.json.

    ``psnr`` and ``curve`` are of ``val/psnr``, or of ``val/psnr_pairs`` for ``kind="pairs"``.
    """
    overrides = dict(overrides or {})
    optimizer = dict(OWN_OPTIMIZER.get(model, {"name": "sgd", "lr": 0.1, "momentum": 0.9}))
    if "optimizer" in overrides and overrides["optimizer"] != optimizer["name"]:
        optimizer = {"name": overrides["optimizer"], "lr": 0.01}
    data = {"name": "photos", "train_pairs": 2048, "val_pairs": 400, "draws": "fixed", "seed": 0, "fingerprint": "f00d"}
    curve = curve if curve is not None else rising(psnr, epochs)
    train_loss, val_loss = train_loss or falling(0.012, len(curve)), val_loss or falling(0.004, len(curve))
    scores = _scores(kind, psnr)
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
        "monitor": MONITORS[kind],
        "best_epoch": len(curve),
        **scores,
        "val/loss": val_loss[-1],
        **NOISY[kind],
        "images_per_second": 1234.5,
        "seconds": 321.0,
        "device": "a CPU, 2 threads",
        "seed": int(overrides.get("seed", "0")),
        "versions": {"torch": "2.13.0"},
        "git_commit": "0123456789abcdef0123456789abcdef01234567",
    }
    result["config"] = {"optimizer": optimizer, "scheduler": {"name": None}, "loss": {"name": "l2"}, "data": data}
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(result | changes))
    with (folder / "metrics.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, [*USUAL_COLUMNS, *(key for key in scores if key not in USUAL_COLUMNS)], restval="")
        table.writeheader()
        for epoch, (training, validation, value) in enumerate(zip(train_loss, val_loss, curve, strict=False), start=1):
            row = {"epoch": epoch, "train/loss": training, "val/loss": validation, "lr": 0.001, "seconds": 16.0}
            table.writerow(row | _scores(kind, value))
    if images:
        _write_images(folder, kind, (result | changes)["image_shape"])
    return folder


def _scores(kind: Kind, psnr: float) -> dict[str, float]:
    """Return the scores of an epoch, without the losses."""
    pairs = {"": psnr, "_low": psnr - 0.3, "_high": psnr + 0.4}
    return {
        "clean": {"val/psnr": psnr, "val/ssim": 0.81},
        "pairs": {**{f"val/psnr_pairs{end}": value for end, value in pairs.items()}, "val/loss_floor": 0.0035},
        "single": {},
    }[kind]


def _write_images(folder: Path, kind: Kind, shape: Sequence[int]) -> None:
    """Write images.npz. Without clean images the target is a second noisy image, without pairs there is none."""
    channels, height, width = shape
    rng = np.random.default_rng(len(folder.name))
    slope = np.linspace(-30, 30, height).astype(int)[None, :, None, None]
    clean = np.broadcast_to(rng.integers(40, 215, (4, 1, 1, channels)) + slope, (4, height, width, channels))

    def noisy(sd: float) -> Any:
        return (clean + rng.normal(0, sd, clean.shape)).clip(0, 255).astype(np.uint8)

    arrays = {"noisy": noisy(9), "denoised": noisy(3)}
    if kind != "single":
        arrays["target"] = noisy(9 if kind == "pairs" else 0)
    np.savez(folder / "images.npz", **arrays)


def write_study(root: Path, scores: Mapping[str, float] = FIVE_MODELS, **changes: Any) -> Path:
    """Write a finished run of each model."""
    for model, psnr in scores.items():
        write_run(root / model, model, psnr, **changes)
    return root
