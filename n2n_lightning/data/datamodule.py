"""``NoisyPairDataModule``: any source of ``NoisyPair`` batches in, loaders out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from n2n_lightning.data.pairs import AUGMENTATIONS, STAGES, NoisyPair, PairData, PairSource, Stage, augment


class BatchKey(NamedTuple):
    """What a batch is made from: the images, and where in training it stands, which seeds all that is drawn for it."""

    indices: Tensor
    epoch: int
    number: int


def generator(*key: int) -> torch.Generator:
    """A generator that depends on the whole key and on nothing else, so that no state has to be kept for resuming."""
    words = repr(tuple(map(int, key)))  # numpy's integers have another one
    seed = int.from_bytes(hashlib.blake2b(words.encode(), digest_size=8).digest(), "little")
    return torch.Generator().manual_seed(seed >> 1)


class EpochBatches(Sampler[BatchKey]):
    """The batches of an epoch in an order that follows from (seed, epoch) alone.

    Args:
        length: number of images.
        batch_size: images a batch; the last batch may be smaller, none is dropped.
        seed: of the order.
        shuffle: False keeps the stored order and the same keys in every epoch.
        repeat_first: give the first batch of epoch 0 this many times an epoch, and nothing else (0: off).
    """

    def __init__(self, length: int, batch_size: int, *, seed: int, shuffle: bool, repeat_first: int = 0) -> None:
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.shuffle, self.repeat_first = shuffle, repeat_first
        self.epoch = self.trainer_epoch = 0
        self.first = 0  # batch to start with

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer before each epoch."""
        self.epoch, self.trainer_epoch = epoch if self.shuffle and not self.repeat_first else 0, epoch

    def __len__(self) -> int:
        return self.repeat_first or -(-self.length // self.batch_size)

    def __iter__(self) -> Iterator[BatchKey]:
        order = torch.arange(self.length)
        if self.shuffle:
            order = torch.randperm(self.length, generator=generator(self.seed, self.epoch))
        for number in range(self.first, len(self)):
            first = 0 if self.repeat_first else number
            yield BatchKey(
                order[first * self.batch_size : (first + 1) * self.batch_size],
                self.epoch,
                first,
            )


class PairBatches(Dataset[NoisyPair]):
    """A ``PairSource`` indexed by ``BatchKey``: one call a batch, none an image."""

    def __init__(self, source: PairSource, *, seed: int, augmentations: Sequence[str] = ()) -> None:
        self.source, self.seed, self.augmentations = source, seed, augmentations

    def __getitem__(self, key: BatchKey) -> NoisyPair:
        rng = generator(self.seed, key.epoch, key.number)
        return augment(self.source.batch(key.indices, rng), self.augmentations, rng)


class PairLoader(DataLoader[NoisyPair]):
    """A loader that counts the batches it gave, and leaves out those that a resumed run has had already.

    It asks its sampler for nothing before the first batch is wanted: workers would ask as soon as they start, which
    after a resume is before the Trainer has set the epoch.
    """

    given = 0  # batches of the epoch
    had_epoch, had_batches = -1, 0  # of an epoch that was broken off

    def __iter__(self) -> Iterator[NoisyPair]:  # type: ignore[override]  # an iterator all the same
        assert isinstance(self.sampler, EpochBatches)
        self.sampler.first = self.given = self.had_batches if self.sampler.trainer_epoch == self.had_epoch else 0
        for batch in super().__iter__():
            self.given += 1
            yield batch


class NoisyPairDataModule(pl.LightningDataModule):
    """Loaders over any ``PairData``.

    Args:
        data: where the pairs come from; read at ``setup``.
        batch_size: training pairs a step.
        val_batch_size: validation pairs a step, where images are of one size; changes no result.
        augment: any of "flip" (both axes), "rotate" (90 degrees, square images only), "swap" (source and target).
        seed: of the order, the draws and the augmentation.
        num_workers: loader processes; 0 loads in the training process, best for data in memory.
        overfit_steps: train on the first batch alone, this many times an epoch (0: off).
        resident: keep all images in the memory of the device that trains, and draw, corrupt and augment batches there;
            None does on a CUDA device where they take up to a quarter of its memory. An accelerator draws other noise
            for training than a processor; validation's is the same.
    """

    def __init__(
        self,
        data: PairData,
        *,
        batch_size: int = 64,
        val_batch_size: int = 100,
        augment: Sequence[str] = (),
        seed: int = 0,
        num_workers: int = 0,
        overfit_steps: int = 0,
        resident: bool | None = None,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("val_batch_size", val_batch_size, 1),
            ("num_workers", num_workers, 0),
            ("overfit_steps", overfit_steps, 0),
        ):
            if value < least:
                raise ValueError(f"{name} must be {least} or more, got {value}; set data.{name}={max(least, 1)}")
        unknown = sorted(set(augment) - set(AUGMENTATIONS))
        if unknown:
            raise ValueError(f"augment takes {', '.join(AUGMENTATIONS)}, got {', '.join(unknown)}; set data.augment=[]")
        if resident and num_workers:
            raise ValueError(f"resident data needs no workers, got num_workers={num_workers}; set data.num_workers=0")
        self.data = data
        self.resident = resident
        self.batch_size, self.val_batch_size = batch_size, val_batch_size
        self.augmentations, self.seed = tuple(augment), seed
        self.num_workers, self.overfit_steps = num_workers, overfit_steps
        self.sources: dict[Stage, PairSource] = {}
        self.had = (-1, 0)  # epoch, and batches of it that the run which this one goes on with had had

    def setup(self, stage: str) -> None:
        """Read what ``stage`` ("fit", "validate") needs; a second call reads nothing."""
        for part in STAGES if stage == "fit" else STAGES[1:]:
            if part not in self.sources:
                self.sources[part] = self.data.load(part)
        if stage == "fit":
            train, val = self.sources["train"], self.sources["val"]
            if train.image_shape[0] != val.image_shape[0]:
                raise ValueError(
                    f"training and validation images must have as many channels, got {train.image_shape[0]} and "
                    f"{val.image_shape[0]}; check data.root and data.val_root"
                )
            if "swap" in self.augmentations and not train.has_pairs:
                raise ValueError("augment 'swap' needs two noisy images that are alike; set data.augment=[flip,rotate]")
            _, height, width = train.image_shape
            if "rotate" in self.augmentations and height != width:
                raise ValueError(f"augment 'rotate' needs square images, got {height}x{width}; set data.augment=[flip]")

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images that were read."""
        return (self.sources.get("train") or self.sources["val"]).image_shape

    @property
    def monitor(self) -> str:
        """The metric that decides which epoch is best."""
        source = self.sources["val"]
        return "val/psnr" if source.has_clean else "val/psnr_pairs" if source.has_pairs else "val/loss"

    @property
    def home(self) -> torch.device | None:
        """The device that keeps the images, None where they stay where they are."""
        if self.trainer is None or self.resident is False or self.num_workers:
            return None
        device = self.trainer.strategy.root_device
        if self.resident:
            return device
        if device.type != "cuda":
            return None
        wanted = sum(source.nbytes for source in self.sources.values())
        return device if 4 * wanted <= torch.cuda.mem_get_info(device)[1] else None  # of all, not of what is free now

    def loader(self, part: Stage) -> PairLoader:
        """The loader of "train" or "val"."""
        if self.home is not None:
            self.sources[part].to(self.home)
        training = part == "train"
        batches = EpochBatches(
            len(self.sources[part]),
            self.batch_size if training else self.val_batch_size if self.sources[part].one_size else 1,
            seed=self.seed,
            shuffle=training,
            repeat_first=self.overfit_steps if training else 0,
        )
        return PairLoader(
            PairBatches(self.sources[part], seed=self.seed, augmentations=self.augmentations if training else ()),
            sampler=batches,
            batch_size=None,  # the sampler gives whole batches
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            generator=torch.Generator(),  # else each epoch takes a number from the global generator
        )

    def train_dataloader(self) -> DataLoader[NoisyPair]:
        self.train_loader = self.loader("train")
        self.train_loader.had_epoch, self.train_loader.had_batches = self.had
        return self.train_loader

    def state_dict(self) -> dict[str, int]:
        """Where training stands, for every checkpoint; Lightning would load a loader's own state too late."""
        trainer = self.trainer
        assert trainer is not None
        return {"epoch": trainer.current_epoch, "batches": self.train_loader.given}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.had = state_dict["epoch"], state_dict["batches"]

    def val_dataloader(self) -> DataLoader[NoisyPair]:
        return self.loader("val")

    def transfer_batch_to_device(self, batch: NoisyPair, device: torch.device, dataloader_idx: int) -> NoisyPair:
        """All that the batch knows, moved; Lightning's own walk through it takes ten times as long."""
        known = {name: images for name, images in batch._asdict().items() if images is not None}
        free = device.type == "cuda"  # MPS gives wrong values without waiting (pytorch#83015)
        return batch._replace(**{name: images.to(device, non_blocking=free) for name, images in known.items()})

    def on_after_batch_transfer(self, batch: NoisyPair, dataloader_idx: int) -> NoisyPair:
        """Stored values -> float32 with 1 for the range, channels_last, on the device that holds the batch."""
        return scale_pair(batch, self.data.peak)


def scale_pair(pair: NoisyPair, peak: float) -> NoisyPair:
    """(N, C, H, W) of any type in 0..peak -> float32 in units of ``peak``, channels_last."""

    def scale(images: Tensor | None) -> Tensor | None:
        if images is None:
            return None
        floats = images.to(torch.float32, memory_format=torch.channels_last)
        return floats / peak if floats is images else floats.div_(peak)  # the stored ones stay as they are

    source, target, clean, third = map(scale, (pair.source, pair.target, pair.clean, pair.third))
    assert source is not None
    return pair._replace(source=source, target=target, clean=clean, third=third)
