"""The trained weights that come with the package, and what the record beside them (``result.json``) says."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from n2n_lightning.system.folders import weights_folder

GENERAL = "general"  # for any Gaussian and Poisson noise: what `predict auto` takes, and training starts from
RECORD_NAME = "result.json"
LICENCE = "MIT"
OTHER_LICENCES = {"fluorescence": "CC BY-SA 4.0"}  # that of its images, whose authors ask for it
UNKNOWN = "–"
DATA_NOISE = {"photos": "pixelate"}  # choices of data= that bring a noise of their own
STRENGTH_UNITS = {"sigma": " of 255", "lam": " counts"}


def find_trained() -> dict[str, Path]:
    """Return the checkpoints under ``weights/`` by their folder's name there, such as "paper/gaussian"."""
    root = weights_folder()
    return {path.parent.relative_to(root).as_posix(): path for path in sorted(root.rglob("best.ckpt"))}


def read_record(checkpoint: Path) -> dict[str, Any]:
    """Return the record of the run that a checkpoint is from; empty without one.

    It lies beside trained weights, and in a run's folder above ``checkpoints``.
    """
    folder = checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent
    try:
        record = json.loads((folder / RECORD_NAME).read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def has_learnt_grey(checkpoint: Path) -> bool:
    """Return whether the training saw grey images too, as images whose channels are equal (``data.augment``)."""
    data = read_record(checkpoint).get("data")
    augment = data.get("augment") if isinstance(data, dict) else None
    return isinstance(augment, list) and "grey" in augment


@dataclass(frozen=True)
class TrainedWeights:
    """What is told of trained weights, as text.

    Args:
        key: name of their folder under ``weights/``.
        name: the shortest name that commands take.
        checkpoint: their file.
        record: of their training.
    """

    key: str
    name: str
    checkpoint: Path
    record: dict[str, Any]

    @property
    def data(self) -> dict[str, Any]:
        """The record's entry about the data."""
        found: dict[str, Any] = self.record.get("data") or {}
        return found

    @property
    def noise(self) -> str:
        """Kind and strengths of the training's noise, by the names of ``noise=``."""
        noise = self.record.get("noise") or {"name": DATA_NOISE.get(self.data.get("name", ""))}
        return join_texts(noise["name"] or "that of the images", strengths(noise))

    @property
    def range(self) -> str:
        """Values of the training's images; the greatest is 1 to the net."""
        return f"0 to {self.data.get('peak') or 255.0:.15g}"

    @property
    def trained_on(self) -> str:
        """Folder of the training's images, the number of pairs in an epoch, and their size."""
        pairs, shape = self.record.get("train_pairs"), self.record.get("image_shape")
        size = f" of {shape[2]}x{shape[1]} px" if shape else ""
        return join_texts(self.data.get("root") or UNKNOWN, f"{pairs:,} pairs{size}" if pairs else "")

    @property
    def psnr(self) -> str:
        """PSNR on the training's validation images at the best epoch, dB; without clean images its estimate."""
        return decibel_text(self.record.get("val/psnr") or self.record.get("val/psnr_pairs"))

    @property
    def noisy_psnr(self) -> str:
        """PSNR of these images before denoising, dB."""
        return decibel_text(self.record.get("noisy_psnr") or self.record.get("noisy_psnr_pairs"))

    @property
    def scored_at(self) -> str:
        """Strength of the noise in the validation images; empty where it is that of the training."""
        return strengths(self.data.get("val_noise") or {})

    @property
    def licence(self) -> str:
        """Licence of the weights."""
        return OTHER_LICENCES.get(self.key, LICENCE)

    @property
    def size(self) -> str:
        """Size of the checkpoint."""
        return f"{self.checkpoint.stat().st_size / 1e6:.1f} MB"


def list_trained() -> list[TrainedWeights]:
    """Return all trained weights that are installed, the general ones first."""
    found = find_trained()
    last_parts = [key.rpartition("/")[2] for key in found]
    listed = [
        TrainedWeights(key, last if last_parts.count(last) == 1 else key, checkpoint, read_record(checkpoint))
        for (key, checkpoint), last in zip(found.items(), last_parts, strict=True)
    ]
    return sorted(listed, key=lambda weights: weights.key != GENERAL)


def strengths(noise: dict[str, Any]) -> str:
    """Return the strengths of a noise as text.

    >>> strengths({"name": "poisson_gaussian", "gain": [0, 0.12], "sigma": 10})
    'gain 0 to 0.12, sigma 10 of 255'
    """
    named = {key: value for key, value in noise.items() if key != "name"}
    texts = {key: " to ".join(map(str, value)) if isinstance(value, list) else value for key, value in named.items()}
    return ", ".join(f"{key} {text}{STRENGTH_UNITS.get(key, '')}" for key, text in texts.items())


def join_texts(*texts: str) -> str:
    return ", ".join(text for text in texts if text)


def decibel_text(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.2f}"
