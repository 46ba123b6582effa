"""Single noisy images: ``data=single``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from n2n_lightning.data.crops import CropSampler
from n2n_lightning.data.device_cache import SceneSource
from n2n_lightning.data.neighbors import draw_choice
from n2n_lightning.data.pairs import NoisyPair, PairSource, Stage
from n2n_lightning.data.scene_data import SceneData
from n2n_lightning.data.scenes import Scene, SceneFiles
from n2n_lightning.data.seeding import generator_on, index_generators
from n2n_lightning.image_io.listing import list_images


class SingleImages(SceneSource):
    """Crops of single noisy images, with the choice of neighbours that makes each a pair (``neighbors.subsample``).

    Args:
        seed: decides the choices in validation.
    """

    def __init__(self, scenes: Sequence[Scene], crops: CropSampler, *, seed: int) -> None:
        if crops.height % 2 or crops.width % 2:
            size = f"{crops.width}x{crops.height}"
            raise ValueError(f"single images need crops of even sides, got {size}; set an even data.crop_px")
        super().__init__(scenes, crops)
        self.seed = seed

    def batch(self, indices: Tensor, rng: torch.Generator) -> NoisyPair:
        windows = self.crops.windows(indices, rng)
        size = windows.height, windows.width
        noisy = self.read([self.scenes[number].noisy[0] for number in windows.scene], windows)
        if self.groups is not None:
            choices = [draw_choice(1, *size, own) for own in index_generators(indices, self.seed)]
            return NoisyPair(noisy, None, choice=torch.cat(choices))
        return NoisyPair(noisy, None, choice=draw_choice(len(indices), *size, generator_on(noisy.device, rng)))


@dataclass(kw_only=True)
class SingleData(SceneData):
    """A folder of single noisy images, for training by Neighbor2Neighbor; ``data=single``.

    The noise must be independent from pixel to pixel. After demosaicing, scaling or JPEG it is not.

    Args:
        root: the folder.
        val_root: folder of the validation images; None holds some of ``root`` back.
    """

    root: str
    val_root: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.crop_px is None or self.crop_px % 2:
            raise ValueError(f"crop_px must be even for data=single, got {self.crop_px}; set data.crop_px=64")

    def find_files(self, stage: Stage) -> tuple[list[SceneFiles], list[str]] | None:
        root = self.root if stage == "train" else self.val_root
        return None if root is None else ([SceneFiles((path,)) for path in list_images(Path(root))], [])

    def make_source(self, scenes: list[Scene], crops: CropSampler, stage: Stage) -> PairSource:
        return SingleImages(scenes, crops, seed=self.seed)
