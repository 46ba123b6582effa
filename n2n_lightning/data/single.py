"""Single noisy images: ``data=single``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from n2n_lightning.data.crops import Crops, generators
from n2n_lightning.data.device_cache import SceneSource
from n2n_lightning.data.neighbors import draw_choice
from n2n_lightning.data.pairs import NoisyPair, PairSource, Stage, on_device
from n2n_lightning.data.scene_data import SceneData
from n2n_lightning.data.scenes import Listing, Scene
from n2n_lightning.image_io.stack import list_images


class SingleImages(SceneSource):
    """Crops of single noisy images, with the choice of neighbours that makes each a pair (``neighbors.subsample``).

    Args:
        scenes: of one frame.
        crops: where; those of a grid are for validation.
        seed: of the validation's choices.
    """

    has_clean = has_pairs = False

    def __init__(self, scenes: Sequence[Scene], crops: Crops, *, seed: int) -> None:
        if crops.height % 2 or crops.width % 2:
            raise ValueError(
                f"single images are split into cells of 2x2 px, got crops of {crops.width}x{crops.height}; set an even "
                "crop_px"
            )
        self.scenes, self.crops, self.seed = scenes, crops, seed
        self.image_shape, self.one_size = (scenes[0].kind[0], crops.height, crops.width), crops.one_size

    def __len__(self) -> int:
        return len(self.crops)

    def batch(self, indices: Tensor, rng: torch.Generator) -> NoisyPair:
        places = self.crops.places(indices, rng)
        height, width = places.height, places.width
        noisy = self.read([self.scenes[number].frames[0] for number in places.scene], places)
        if self.crops.groups is not None:
            choices = [draw_choice(1, height, width, own) for own in generators(indices, self.seed)]
            return NoisyPair(noisy, None, choice=torch.cat(choices))
        return NoisyPair(noisy, None, choice=draw_choice(len(indices), height, width, on_device(rng, noisy.device)))


@dataclass(kw_only=True)
class SingleData(SceneData):
    """A folder of noisy images with no second one, by Neighbor2Neighbor; ``data=single``.

    The noise must be independent from pixel to pixel, which demosaicing, scaling and JPEG take from it.

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

    def listings(self, stage: Stage, faults: list[str]) -> list[Listing] | None:
        root = self.root if stage == "train" else self.val_root
        return None if root is None else [Listing((path,)) for path in list_images(Path(root))]

    def make_source(self, scenes: list[Scene], crops: Crops, stage: Stage) -> PairSource:
        return SingleImages(scenes, crops, seed=self.seed)
