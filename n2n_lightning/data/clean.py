"""Clean images with synthetic noise: ``data=clean noise=...``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from n2n_lightning.data.crops import CropSampler
from n2n_lightning.data.device_cache import SceneSource
from n2n_lightning.data.pairs import NoisyPair, PairSource, Stage, Targets
from n2n_lightning.data.scene_data import SceneData
from n2n_lightning.data.scenes import Scene, SceneFiles
from n2n_lightning.data.seeding import generator_on, index_generators
from n2n_lightning.image_io.listing import file_or_images
from n2n_lightning.noise.choices import make_noise
from n2n_lightning.noise.kinds import Noise, Poisson, PoissonGaussian


class CleanPairs(SceneSource):
    """A noisy version of each clean crop, and a second one or the crop itself; in validation also the crop.

    Args:
        noise: drawn once for the source and once for the target.
        peak: the stored value that is 1 to the noise.
        seed: None draws new noise each time, from the batch's generator; otherwise a crop's noise follows from the
            seed and its index.
        targets: what the targets are; with "clean" validation draws no second noisy version.
    """

    def __init__(
        self, scenes: list[Scene], crops: CropSampler, noise: Noise, *, peak: float, seed: int | None, targets: Targets
    ) -> None:
        super().__init__(scenes, crops, noise.cell_px)
        self.noise, self.peak, self.seed, self.targets = noise, peak, seed, targets
        self.has_clean = self.groups is not None
        # source and target are alike if no pixel is left out; and validation can only use noise of zero mean
        alike = targets == "noisy" and not noise.masks
        self.has_pairs = alike and (not self.has_clean or "mean" in noise.preserves)

    @property
    def names(self) -> list[str]:
        """The file that each validation pair is made from."""
        return [] if self.crops.scenes is None else [self.scenes[number].name for number in self.crops.scenes]

    @property
    def nbytes(self) -> int:
        return 0 if self.seed is not None else super().nbytes

    def to(self, device: torch.device) -> None:
        """Move the images if their noise is new each time; noise from a seed is drawn on the CPU, as everywhere."""
        if self.seed is None:
            super().to(device)

    def batch(self, indices: Tensor, rng: torch.Generator) -> NoisyPair:
        windows = self.crops.windows(indices, rng)
        clean = [image for number in windows.scene if (image := self.scenes[number].clean)]
        images = self.read(clean, windows).float().div_(self.peak).contiguous()
        if self.seed is None:
            pair = self.corrupt(images, rng)
        else:
            own = zip(images[:, None], index_generators(indices, self.seed), strict=True)
            pair = NoisyPair.joined([self.corrupt(image, rng) for image, rng in own])
        if self.groups is None:
            return pair
        return pair._replace(clean=self.noise.clean(images) * self.peak, group=self.groups[indices])

    def corrupt(self, images: Tensor, rng: torch.Generator) -> NoisyPair:
        """Return a noisy pair in stored values: (N, C, H, W) float32 in units of the peak -> float32 in 0..peak."""
        rng = generator_on(images.device, rng)
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
        draws: "fresh", new crops and new noise in every epoch, or "fixed", the same in every epoch.
        targets: "noisy", a second noisy version, or "clean", to compare with.
        val_noise: arguments of ``noise`` that differ in validation.
        images: number of images that ``root`` must hold, for a benchmark; None for any number.
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
        self.cell_px = self.noises["train"].cell_px

    def find_files(self, stage: Stage) -> tuple[list[SceneFiles], list[str]] | None:
        root = self.root if stage == "train" else self.val_root
        if root is None:
            return None
        paths = file_or_images(Path(root))
        if stage == "train" and self.images not in (None, len(paths)):
            raise ValueError(f"{root} must hold the benchmark's {self.images} images, got {len(paths)}; see data.root")
        return [SceneFiles((), path) for path in paths], []

    def make_source(self, scenes: list[Scene], crops: CropSampler, stage: Stage) -> PairSource:
        if self.values.span.low < 0 and isinstance(self.noises[stage], Poisson | PoissonGaussian):
            raise ValueError(
                f"noise={self.noise['name']} needs images without values below 0, got {self.values.span.low:g}; "
                "set noise=gaussian"
            )
        fixed = self.seed if self.draws == "fixed" else None
        seed = fixed if stage == "train" else self.seed + 1  # + 1: the stages' noise must differ
        return CleanPairs(scenes, crops, self.noises[stage], peak=self.peak, seed=seed, targets=self.targets)
