"""Batches of pairs for training: their order, their augmentation, and the loader that can resume within an epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from n2n_lightning.data.pairs import NoisyPair, PairSource
from n2n_lightning.data.seeding import generator_on, seeded_generator

AUGMENTATIONS = ("flip", "rotate", "swap", "grey")


class BatchKey(NamedTuple):
    """The images of a batch, and its place in training, from which everything that is drawn for it follows."""

    indices: Tensor  # (B,) int64
    epoch: int
    number: int
    counts: bool = True  # False for an image that only keeps a rank busy while others validate their last batch


class Share(NamedTuple):
    """The part of the images that one of several processes takes (``torch.distributed`` calls them ranks)."""

    rank: int = 0
    ranks: int = 1

    def part(self, length: int) -> slice:
        """Return this rank's part of so many images, in the stored order; the parts differ by at most one image."""
        each, more = divmod(length, self.ranks)
        first = self.rank * each + min(self.rank, more)
        return slice(first, first + each + (self.rank < more))


WHOLE = Share()


class EpochBatches(Sampler[BatchKey]):
    """The batches of an epoch, in an order that follows from (seed, epoch) alone.

    Args:
        length: number of images.
        batch_size: images in a batch; the last batch may be smaller, no image is dropped.
        seed: seed of the order.
        shuffle: False keeps the stored order and the same keys in every epoch.
        repeat_first: give the first batch of epoch 0 this many times an epoch, and nothing else (0: off).
        share: give batches of these images only. All ranks get the same number of batches.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        *,
        seed: int,
        shuffle: bool,
        repeat_first: int = 0,
        share: Share = WHOLE,
    ) -> None:
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.shuffle, self.repeat_first, self.share = shuffle, repeat_first, share
        self.epoch = self.trainer_epoch = 0
        self.first_batch = 0  # where to start in the epoch

    def set_epoch(self, epoch: int) -> None:
        """Note the epoch; the Trainer calls this before each one."""
        self.epoch, self.trainer_epoch = epoch if self.shuffle and not self.repeat_first else 0, epoch

    def __len__(self) -> int:
        largest = -(-self.length // self.share.ranks)
        return self.repeat_first or -(-largest // self.batch_size)

    def __iter__(self) -> Iterator[BatchKey]:
        order = torch.arange(self.length)
        if self.shuffle:
            order = torch.randperm(self.length, generator=seeded_generator(self.seed, self.epoch))
        own = order[self.share.part(len(order))]
        batches = own.split(self.batch_size) if len(own) else ()
        for place in range(self.first_batch, len(self)):
            number = 0 if self.repeat_first else place
            counts = number < len(batches)
            yield BatchKey(batches[number] if counts else order[:1], self.epoch, number, counts)


class PairBatches(Dataset[NoisyPair]):
    """A ``PairSource`` that is indexed by ``BatchKey``: one call for a batch, none for an image.

    Args:
        source: of the pairs.
        seed: seed of the draws and the augmentation.
        augmentations: of ``AUGMENTATIONS``.
        share: the part of each batch to give. What is drawn for the batch is the same for any division.
    """

    def __init__(
        self, source: PairSource, *, seed: int, augmentations: Sequence[str] = (), share: Share = WHOLE
    ) -> None:
        self.source, self.seed, self.augmentations, self.share = source, seed, augmentations, share

    def __getitem__(self, key: BatchKey) -> NoisyPair:
        rng = seeded_generator(self.seed, key.epoch, key.number)
        pair = augment(self.source.batch(key.indices, rng), self.augmentations, rng)
        return take_share(pair, self.share) if key.counts else pair._replace(weight=0.0)


def take_share(pair: NoisyPair, share: Share) -> NoisyPair:
    """Return a rank's part of a batch, with the weight that makes the mean of the ranks' losses that of the batch.

    A rank that has no image of a small batch gets its last one, with weight 0.
    """
    if share.ranks == 1:
        return pair
    whole = len(pair.source)
    part = share.part(whole)
    count = part.stop - part.start
    part = part if count else slice(whole - 1, whole)
    images = pair._replace(seeds=None).map(lambda images: images[part])
    return images._replace(seeds=seeds_of_part(pair.seeds, part, whole), weight=count * share.ranks / whole)


def seeds_of_part(seeds: Tensor | None, part: slice, whole: int) -> Tensor | None:
    """Return the seeds of a part of a batch, for ``draws.draw``: (N,) -> (n,); (1,), of the batch -> (1, 3)."""
    if seeds is None or len(seeds) == whole:
        return None if seeds is None else seeds[part]
    return torch.tensor([[int(seeds), part.start, whole]])


class PairLoader(DataLoader[NoisyPair]):
    """A loader that counts its batches and, in a resumed run, skips those that were trained on before.

    It asks its sampler for nothing before the first batch is wanted. Workers would ask when they start, which after a
    resume is before the Trainer has set the epoch.
    """

    batches_given = 0  # in this epoch
    resumed_epoch, batches_done = -1, 0  # the epoch that was interrupted, and its batches before the interruption

    def __iter__(self) -> Iterator[NoisyPair]:  # type: ignore[override]  # a generator instead of Lightning's class
        assert isinstance(self.sampler, EpochBatches)
        self.batches_given = self.batches_done if self.sampler.trainer_epoch == self.resumed_epoch else 0
        self.sampler.first_batch = self.batches_given
        for batch in super().__iter__():
            self.batches_given += 1
            yield batch


def augment(pair: NoisyPair, kinds: Sequence[str], rng: torch.Generator) -> NoisyPair:
    """Change half of the scenes, chosen at random for each kind; all images of a scene are changed alike.

    "flip" mirrors, "rotate" turns by 90 degrees, "swap" exchanges the two noisy images, and "grey" puts one channel,
    chosen at random, into all, so that one net learns grey and colour images.
    """
    device = pair.source.device
    rng = generator_on(device, rng) if kinds else rng

    def toss_coins() -> Tensor:
        return torch.randint(2, (len(pair.source), 1, 1, 1), generator=rng, device=device).bool()

    def turn_some(pair: NoisyPair, turn: Callable[[Tensor], Tensor]) -> NoisyPair:
        chosen = toss_coins()
        return pair.map(lambda images: torch.where(chosen, turn(images), images), "source", "target", "clean", "mask")

    if "swap" in kinds and pair.target is not None:
        swap = toss_coins()
        source, target = torch.where(swap, pair.target, pair.source), torch.where(swap, pair.source, pair.target)
        pair = pair._replace(source=source, target=target)
    if "flip" in kinds:
        pair = turn_some(pair, lambda images: images.flip(-1))
        pair = turn_some(pair, lambda images: images.flip(-2))
    if "rotate" in kinds:
        pair = turn_some(pair, lambda images: images.rot90(1, (-2, -1)))
    if "grey" in kinds:
        shape = pair.source.shape
        channel = torch.randint(shape[1], (shape[0], 1, 1, 1), generator=rng, device=device)
        pair = turn_some(pair, lambda x: x.take_along_dim(channel, 1).expand_as(x) if x.shape == shape else x)
    return pair
