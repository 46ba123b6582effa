"""Clean images with synthetic noise: ``data=clean noise=...``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from n2n_lightning.data.crops import Crops, generators
from n2n_lightning.data.device_cache import SceneSource
from n2n_lightning.data.pairs import NoisyPair, PairSource, Stage, Targets, concatenate, on_device
from n2n_lightning.data.scene_data import SceneData
from n2n_lightning.data.scenes import Listing, Scene
from n2n_lightning.image_io.stack import list_images
from n2n_lightning.noise.choices import make_noise
from n2n_lightning.noise.kinds import Noise


class CleanPairs(SceneSource):
    """A noisy version of each clean crop, and a second one or the crop itself; in validation with the clean one.

    Args:
        scenes: the clean image of each.
        crops: where; those of a grid are for validation.
        noise: drawn once for the source and once for the target.
        peak: value of the images that is 1 to the noise.
        seed: None draws new noise each time, from the batch's generator; else a crop's noise follows from the seed and
            its index.
        targets: what they are; "clean" also spares validation, which has the clean images anyway, second noisy ones.
    """

    def __init__(
        self,
        scenes: Sequence[Scene],
        crops: Crops,
        noise: Noise,
        *,
        peak: float,
        seed: int | None,
        targets: Targets = "noisy",
    ) -> None:
        self.scenes, self.crops, self.noise, self.peak, self.seed = scenes, crops, noise, peak, seed
        self.groups = crops.groups
        self.has_clean = self.groups is not None
        # source and target are alike where no pixel is left out; and validation can only use noises of zero mean
        alike = targets == "noisy" and not noise.masks
        self.has_pairs = alike and (not self.has_clean or "mean" in noise.preserves)
        self.targets = targets
        self.one_size = crops.one_size
        self.image_shape = (scenes[0].kind[0], crops.height // noise.cell_px, crops.width // noise.cell_px)

    def __len__(self) -> int:
        return len(self.crops)

    @property
    def names(self) -> list[str]:
        """In validation, the file that each pair is made from."""
        return [] if self.crops.scenes is None else [self.scenes[number].name for number in self.crops.scenes]

    @property
    def nbytes(self) -> int:
        return 0 if self.seed is not None else super().nbytes

    def to(self, device: torch.device) -> None:
        """Noise that follows from a seed, validation's too, is the processor's, and so the same on every machine."""
        if self.seed is None:
            super().to(device)

    def batch(self, indices: Tensor, rng: torch.Generator) -> NoisyPair:
        places = self.crops.places(indices, rng)
        frames = [clean for number in places.scene if (clean := self.scenes[number].clean) is not None]
        images = self.read(frames, places).float().div_(self.peak).contiguous()
        if self.seed is None:
            pair = self.corrupt(images, rng)
        else:
            own = zip(images[:, None], generators(indices, self.seed), strict=True)
            pair = concatenate([self.corrupt(image, rng) for image, rng in own])
        if self.groups is None:
            return pair
        return pair._replace(clean=self.noise.clean(images) * self.peak, group=self.groups[indices])

    def corrupt(self, images: Tensor, rng: torch.Generator) -> NoisyPair:
        """(N, C, H, W) float32 in units of the peak -> a pair in stored values."""
        rng = on_device(rng, images.device)
        if self.has_clean and not self.has_pairs:
            return NoisyPair(self.noise.corrupt(images, rng) * self.peak, None)
        if self.targets == "clean":
            return NoisyPair(self.noise.corrupt(images, rng) * self.peak, self.noise.clean(images) * self.peak)
        source, target, mask = self.noise.corrupt_pair(images, rng)
        return NoisyPair(source * self.peak, target * self.peak, mask=mask)


@dataclass(kw_only=True)
class CleanData(SceneData):
    """A folder of clean images, to which noise is added; ``data=clean``.

    Args:
        root: the folder.
        noise: name in ``NOISES`` and its arguments.
        val_root: folder of the validation images; None holds some of ``root`` back.
        draws: "fresh", new crops and new noise in every epoch, or "fixed", the same for ever.
        targets: "noisy", a second noisy version, or "clean", to compare with.
        val_noise: arguments of ``noise`` that differ in validation.
        images: how many ``root`` must hold, for a benchmark; None for any number.
    """

    root: str
    noise: dict[str, Any]
    val_root: str | None = None
    draws: Literal["fixed", "fresh"] = "fresh"
    targets: Targets = "noisy"
    val_noise: dict[str, Any] | None = None
    images: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.noises: dict[Stage, Noise] = {
            "train": make_noise(self.noise),
            "val": make_noise(self.noise | (self.val_noise or {})),
        }

    @property
    def cell_px(self) -> int:
        return self.noises["train"].cell_px

    @property
    def fixed_seed(self) -> int | None:
        return self.seed if self.draws == "fixed" else None

    def listings(self, stage: Stage, faults: list[str]) -> list[Listing] | None:
        root = self.root if stage == "train" else self.val_root
        if root is None:
            return None
        paths = list_images(Path(root))
        if stage == "train" and self.images not in (None, len(paths)):
            raise ValueError(f"{root} must hold the benchmark's {self.images} images, got {len(paths)}; see data.root")
        return [Listing((), path) for path in paths]

    def make_source(self, scenes: list[Scene], crops: Crops, stage: Stage) -> PairSource:
        seed = self.fixed_seed if stage == "train" else self.seed + 1  # else both stages' noise would be the same
        return CleanPairs(scenes, crops, self.noises[stage], peak=self.peak, seed=seed, targets=self.targets)
