"""``NoisyPair``, and the sources that yield batches of it: where pairs come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from n2n_lightning.noise import draw_cell_pixels

Stage = Literal["train", "val"]
STAGES: tuple[Stage, ...] = ("train", "val")
AUGMENTATIONS = ("flip", "rotate", "swap")


class NoisyPair(NamedTuple):
    """A batch of two noisy images of the same scenes, (N, C, H, W) each; ``clean`` where it is known.

    As stored: uint8 in 0..255. In a step: float32, 1 for the data set's range. Where validation has clean images and
    no second noisy one, ``target`` is the clean image too.
    """

    source: Tensor
    target: Tensor
    clean: Tensor | None


class PairSource(Protocol):
    """Any indexed store of pairs that gives whole batches."""

    image_shape: tuple[int, int, int]  # (C, H, W)
    has_clean: bool  # whether batches carry the clean images

    def __len__(self) -> int: ...

    def batch(self, indices: Tensor, rng: torch.Generator) -> NoisyPair:
        """(B,) int64 indices -> the pairs at them; ``rng`` drives whatever is drawn afresh."""
        ...


class PairData(Protocol):
    """A data set: reads nothing until asked for one of its two parts."""

    peak: float  # the value that becomes 1.0

    def load(self, stage: Stage) -> PairSource: ...

    def fingerprint(self) -> str: ...


class TensorPairs:
    """Pairs held in memory as tensors of one shape and type.

    Args:
        source: (N, C, H, W).
        target: like ``source``.
        clean: like ``source``, or None.
    """

    def __init__(self, source: Tensor, target: Tensor, clean: Tensor | None = None) -> None:
        assert source.shape == target.shape and source.ndim == 4
        self.source, self.target, self.clean = source, target, clean
        channels, height, width = source.shape[1:]
        self.image_shape = (channels, height, width)
        self.has_clean = clean is not None

    def __len__(self) -> int:
        return len(self.source)

    def batch(self, indices: Tensor, rng: torch.Generator) -> NoisyPair:
        clean = None if self.clean is None else self.clean[indices]
        target = clean if clean is not None and self.target is self.clean else self.target[indices]
        return NoisyPair(self.source[indices], target, clean)


class CellPairs:
    """Pairs drawn afresh each time from the photographs' cells (see ``noise.draw_cell_pixels``).

    Args:
        cells: (N, H, W, K, C) uint8, may be memory-mapped; K x C x H x W bytes an image (192 KiB for 8x8 cells of
            32x32 RGB).
    """

    has_clean = False

    def __init__(self, cells: Tensor) -> None:
        self.cells = cells
        _, height, width, _, channels = cells.shape
        self.image_shape = (channels, height, width)

    def __len__(self) -> int:
        return len(self.cells)

    def batch(self, indices: Tensor, rng: torch.Generator) -> NoisyPair:
        cells = self.cells[indices]
        return NoisyPair(draw_cell_pixels(cells, rng), draw_cell_pixels(cells, rng), None)


def augment(pair: NoisyPair, kinds: Sequence[str], rng: torch.Generator) -> NoisyPair:
    """Flip, rotate by 90 degrees and swap the two images at random, image by image, alike for source and target."""

    def coin() -> Tensor:
        return torch.randint(2, (len(pair.source), 1, 1, 1), generator=rng).bool()

    source, target, clean = pair
    if "swap" in kinds:
        swap = coin()
        source, target = torch.where(swap, target, source), torch.where(swap, source, target)
    turns: list[Callable[[Tensor], Tensor]] = []
    if "flip" in kinds:
        turns += [lambda images: images.flip(-1), lambda images: images.flip(-2)]
    if "rotate" in kinds:
        turns.append(lambda images: images.rot90(1, (-2, -1)))
    for turn in turns:
        chosen = coin()
        source, target = (torch.where(chosen, turn(images), images) for images in (source, target))
        clean = None if clean is None else torch.where(chosen, turn(clean), clean)
    return NoisyPair(source, target, clean)
