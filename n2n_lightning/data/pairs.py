"""``NoisyPair``, and the sources that yield batches of it: where pairs come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from n2n_lightning.noise.pixelation import draw_cell_pixels

Stage = Literal["train", "val"]
STAGES: tuple[Stage, ...] = ("train", "val")
Targets = Literal["noisy", "clean"]
AUGMENTATIONS = ("flip", "rotate", "swap")


class NoisyPair(NamedTuple):
    """A batch of two noisy images of the same scenes, (N, C, H, W) each, and what else is known of them.

    As stored: uint8 or float32 in 0..peak. In a step: float32, 1 for the data set's range.
    """

    source: Tensor
    target: Tensor | None  # a second image with noise of its own; None where there is but one
    clean: Tensor | None = None
    third: Tensor | None = None  # in validation: another noisy image
    group: Tensor | None = None  # in validation: (N,) int64, images with the same number are resampled together
    mask: Tensor | None = None  # (N, 1, H, W) bool: the pixels of the target to learn from; None for all
    choice: Tensor | None = None  # single images: (N, H / 2, W / 2), see ``neighbors.subsample``


class PairSource(Protocol):
    """Any indexed store of pairs that gives whole batches."""

    image_shape: tuple[int, int, int]  # (C, H, W); of the first where sizes differ
    one_size: bool  # whether a batch can hold several images
    has_clean: bool  # whether batches carry the clean images
    has_pairs: bool  # whether they carry a second noisy image, alike enough to change places with the first

    @property
    def nbytes(self) -> int:
        """What ``to`` takes of a device's memory."""
        ...

    def to(self, device: torch.device) -> None:
        """Keep all images on ``device``, and make batches there."""
        ...

    def __len__(self) -> int: ...

    def batch(self, indices: Tensor, rng: torch.Generator) -> NoisyPair:
        """(B,) int64 indices -> the pairs at them; ``rng``, the processor's, drives whatever is drawn afresh."""
        ...


class PairData(Protocol):
    """A data set: reads nothing until asked for one of its two parts."""

    @property
    def peak(self) -> float:
        """The value that becomes 1.0."""
        ...

    @property
    def sample_type(self) -> str:
        """Of the stored values: "uint8", "uint16", ..., or "float"."""
        ...

    def load(self, stage: Stage) -> PairSource: ...

    def fingerprint(self) -> str: ...


class TensorPairs:
    """Pairs held in memory as tensors of one shape and type.

    Args:
        source: (N, C, H, W).
        target: like ``source``, or None.
        clean: like ``source``, or None.
        targets: what ``target`` is.
    """

    one_size = True

    def __init__(
        self, source: Tensor, target: Tensor | None, clean: Tensor | None = None, *, targets: Targets = "noisy"
    ) -> None:
        assert source.ndim == 4 and all(other is None or other.shape == source.shape for other in (target, clean))
        self.source, self.target, self.clean = source, target, clean
        channels, height, width = source.shape[1:]
        self.image_shape = (channels, height, width)
        self.has_clean, self.has_pairs = clean is not None, target is not None and targets == "noisy"

    def __len__(self) -> int:
        return len(self.source)

    @property
    def nbytes(self) -> int:
        return sum(images.nbytes for images in (self.source, self.target, self.clean) if images is not None)

    def to(self, device: torch.device) -> None:
        self.source = self.source.to(device)
        self.target, self.clean = (None if x is None else x.to(device) for x in (self.target, self.clean))

    def batch(self, indices: Tensor, rng: torch.Generator) -> NoisyPair:
        target, clean = (None if images is None else images[indices] for images in (self.target, self.clean))
        return NoisyPair(self.source[indices], target, clean)


class CellPairs:
    """Pairs drawn afresh each time from the photographs' cells (see ``pixelation.draw_cell_pixels``).

    Args:
        cells: (N, H, W, K, C) uint8, may be memory-mapped; K x C x H x W bytes an image (192 KiB for 8x8 cells of
            32x32 RGB).
        targets: "noisy", a second draw, or "clean", the cells' means.
    """

    has_clean, one_size = False, True

    def __init__(self, cells: Tensor, targets: Targets = "noisy") -> None:
        self.cells, self.has_pairs = cells, targets == "noisy"
        _, height, width, _, channels = cells.shape
        self.image_shape = (channels, height, width)

    def __len__(self) -> int:
        return len(self.cells)

    @property
    def nbytes(self) -> int:
        return self.cells.nbytes

    def to(self, device: torch.device) -> None:
        self.cells = self.cells.to(device)

    def batch(self, indices: Tensor, rng: torch.Generator) -> NoisyPair:
        cells, rng = self.cells[indices], on_device(rng, self.cells.device)
        source = draw_cell_pixels(cells, rng)
        if not self.has_pairs:
            return NoisyPair(source, cells.float().mean(3).round_().permute(0, 3, 1, 2).byte())
        return NoisyPair(source, draw_cell_pixels(cells, rng))


def on_device(rng: torch.Generator, device: torch.device) -> torch.Generator:
    """``rng`` itself where it is the device's own, else one of the device that follows from it."""
    if rng.device.type == device.type:
        return rng
    return torch.Generator(device).manual_seed(int(torch.randint(2**62, (), generator=rng)))


def concatenate(pairs: Sequence[NoisyPair]) -> NoisyPair:
    """Batches that know the same of their images -> one batch."""
    known = [name for name, images in pairs[0]._asdict().items() if images is not None]
    return pairs[0]._replace(**{name: torch.cat([getattr(pair, name) for pair in pairs]) for name in known})


def augment(pair: NoisyPair, kinds: Sequence[str], rng: torch.Generator) -> NoisyPair:
    """Flip, rotate by 90 degrees and swap the two images at random, image by image, alike for all images of a scene."""
    device = pair.source.device
    rng = on_device(rng, device) if kinds else rng

    def coin() -> Tensor:
        return torch.randint(2, (len(pair.source), 1, 1, 1), generator=rng, device=device).bool()

    def apply(turn: Callable[[Tensor], Tensor], pair: NoisyPair) -> NoisyPair:
        chosen = coin()
        source, target, clean, mask = (
            None if images is None else torch.where(chosen, turn(images), images)
            for images in (pair.source, pair.target, pair.clean, pair.mask)
        )
        assert source is not None
        return pair._replace(source=source, target=target, clean=clean, mask=mask)

    if "swap" in kinds and pair.target is not None:
        swap = coin()
        source, target = torch.where(swap, pair.target, pair.source), torch.where(swap, pair.source, pair.target)
        pair = pair._replace(source=source, target=target)
    if "flip" in kinds:
        pair = apply(lambda images: images.flip(-1), pair)
        pair = apply(lambda images: images.flip(-2), pair)
    if "rotate" in kinds:
        pair = apply(lambda images: images.rot90(1, (-2, -1)), pair)
    return pair
