"""Single noisy images: ``data=single``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from n2n_lightning.data.crops import CropSampler
from n2n_lightning.data.device_cache import SceneSource
from n2n_lightning.data.pairs import NoisyPair, PairSource, Stage
from n2n_lightning.data.scene_data import SceneData
from n2n_lightning.data.scenes import Scene, SceneFiles
from n2n_lightning.data.seeding import index_seeds
from n2n_lightning.image_io.listing import file_or_images
from n2n_lightning.self_supervised.r2r import Line


class SingleImages(SceneSource):
    """Crops of single noisy images, with the seeds of what a loss draws for them (``self_supervised``).

    Args:
        seed: decides the seeds in validation.
    """

    def __init__(self, scenes: Sequence[Scene], crops: CropSampler, *, seed: int) -> None:
        super().__init__(scenes, crops)
        self.seed = seed

    def batch(self, indices: Tensor, rng: torch.Generator) -> NoisyPair:
        windows = self.crops.windows(indices, rng)
        noisy = self.read([self.scenes[number].noisy[0] for number in windows.scene], windows)
        in_training = self.groups is None
        seeds = torch.randint(2**62, (1,), generator=rng) if in_training else index_seeds(indices, self.seed)
        return NoisyPair(noisy, None, seeds=seeds)


@dataclass(kw_only=True)
class SingleData(SceneData):
    """Single noisy images; ``data=single``. The loss says what must hold for their noise.

    Args:
        root: a folder of images, or one file.
        val_root: the same for validation; None holds some of ``root`` back.
    """

    root: str
    val_root: str | None = None
    variance: Line | None = field(init=False, default=None)  # of the noise, where training has measured it
    variance_is_trusted: bool = field(init=False, default=False)

    def find_files(self, stage: Stage) -> tuple[list[SceneFiles], list[str]] | None:
        root = self.root if stage == "train" else self.val_root
        return None if root is None else ([SceneFiles((path,)) for path in file_or_images(Path(root))], [])

    def make_source(self, scenes: list[Scene], crops: CropSampler, stage: Stage) -> PairSource:
        return SingleImages(scenes, crops, seed=self.seed)
