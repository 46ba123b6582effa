"""``NoisyPairDataModule``: loaders over any ``PairData``."""

from __future__ import annotations

from collections.abc import Sequence

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from n2n_lightning.data.batches import AUGMENTATIONS, WHOLE, EpochBatches, PairBatches, PairLoader, Share
from n2n_lightning.data.pairs import STAGES, NoisyPair, PairData, PairSource, Stage, check_at_least, to_device


class NoisyPairDataModule(pl.LightningDataModule):
    """Loaders over any ``PairData``.

    Args:
        data: where the pairs come from; read at ``setup``.
        batch_size: training pairs a step.
        val_batch_size: validation pairs a step, if images have one size; changes no result.
        augment: any of "flip" (both axes), "rotate" (90 degrees, square images only), "swap" (source and target),
            "grey" (one channel in all).
        seed: seed of the order, the draws and the augmentation.
        num_workers: loader processes; 0 loads in the training process, best for data in memory.
        overfit_steps: train on the first batch alone, this many times an epoch (0: off).
        resident: keep all images in the memory of the device that trains, and draw, corrupt and augment batches there;
            None does so on a CUDA device if they take at most a quarter of its memory. For training an accelerator
            draws other noise than the CPU does; for validation it is the same.
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
        check_at_least(1, 64, batch_size=batch_size, val_batch_size=val_batch_size)
        check_at_least(0, 0, num_workers=num_workers, overfit_steps=overfit_steps)
        unknown = sorted(set(augment) - set(AUGMENTATIONS))
        if unknown:
            raise ValueError(f"augment takes {', '.join(AUGMENTATIONS)}, got {', '.join(unknown)}; set data.augment=[]")
        if resident and num_workers:
            raise ValueError(f"resident data needs no workers, got num_workers={num_workers}; set data.num_workers=0")
        self.data, self.resident = data, resident
        self.batch_size, self.val_batch_size = batch_size, val_batch_size
        self.augmentations, self.seed = tuple(augment), seed
        self.num_workers, self.overfit_steps = num_workers, overfit_steps
        self.sources: dict[Stage, PairSource] = {}
        self.train_loader: PairLoader | None = None  # before training
        self.resumed_epoch, self.batches_done = -1, 0  # see PairLoader
        self.limit_val_batches: float | None = None  # of all ranks; the Trainer's limit would be of each

    def setup(self, stage: str) -> None:
        """Read what ``stage`` ("fit", "validate") needs; a second call reads nothing."""
        for part in STAGES if stage == "fit" else STAGES[1:]:
            if part not in self.sources:
                self.sources[part] = self.data.load(part)
        if stage == "fit":
            self._check_fit(self.sources["train"], self.sources["val"])

    def _check_fit(self, train: PairSource, val: PairSource) -> None:
        """Raise ValueError if training cannot use the images."""
        channels, height, width = train.image_shape
        if channels != val.image_shape[0]:
            raise ValueError(
                f"training and validation images must have the same number of channels, got {channels} and "
                f"{val.image_shape[0]}; check data.root and data.val_root"
            )
        if "swap" in self.augmentations and not train.has_pairs:
            raise ValueError("augment 'swap' needs two noisy images that are alike; set data.augment=[flip,rotate]")
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
        if source.has_clean or source.has_pairs:
            return "val/psnr" if source.has_clean else "val/psnr_pairs"
        return "val/psnr_sure" if getattr(self.data, "variance_is_trusted", False) else "val/loss"

    @property
    def resident_device(self) -> torch.device | None:
        """The device that keeps all images in its memory; None if none does."""
        if self.trainer is None or self.resident is False or self.num_workers:
            return None
        device = self.trainer.strategy.root_device
        if self.resident:
            return device
        if device.type != "cuda":
            return None
        wanted = sum(source.nbytes for source in self.sources.values())
        total = torch.cuda.mem_get_info(device)[1]  # not the free part, in which the first stage's images may lie
        return device if 4 * wanted <= total else None

    @property
    def share(self) -> Share:
        """The part of the images that this process takes."""
        return WHOLE if self.trainer is None else Share(self.trainer.global_rank, self.trainer.world_size)

    def loader(self, stage: Stage, share: Share = WHOLE) -> PairLoader:
        """Return the loader of a stage: of a share of each batch in training, of all images in validation."""
        source, training = self.sources[stage], stage == "train"
        if self.resident_device is not None:
            source.to(self.resident_device)
        length, size = len(source), self.batch_size if training else self.val_batch_size if source.one_size else 1
        if share.ranks > 1 and not training:
            length = self.limited_length(length, size)
        batches = EpochBatches(
            length,
            size,
            seed=self.seed,
            shuffle=training,
            repeat_first=self.overfit_steps if training else 0,
            share=WHOLE if training else share,
        )
        return PairLoader(
            PairBatches(
                source,
                seed=self.seed,
                augmentations=self.augmentations if training else (),
                share=share if training else WHOLE,
            ),
            sampler=batches,
            batch_size=None,  # the sampler gives whole batches
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            generator=torch.Generator(),  # else each epoch takes a number from the global generator
        )

    def limited_length(self, length: int, size: int) -> int:
        """Return how many validation images there are in ``limit_val_batches`` batches of this size."""
        limit, batches = self.limit_val_batches, -(-length // size)
        batches = min(limit, batches) if isinstance(limit, int) else int((1.0 if limit is None else limit) * batches)
        return min(length, batches * size)

    def train_dataloader(self) -> DataLoader[NoisyPair]:
        self.train_loader = self.loader("train", self.share)
        self.train_loader.resumed_epoch, self.train_loader.batches_done = self.resumed_epoch, self.batches_done
        return self.train_loader

    def val_dataloader(self) -> DataLoader[NoisyPair]:
        return self.loader("val", self.share)

    def state_dict(self) -> dict[str, int]:
        """Return how far training is, for every checkpoint; Lightning would load a loader's own state too late."""
        assert self.trainer is not None
        batches = 0 if self.train_loader is None else self.train_loader.batches_given
        return {"epoch": self.trainer.current_epoch, "batches": batches}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.resumed_epoch, self.batches_done = state_dict["epoch"], state_dict["batches"]

    def transfer_batch_to_device(self, batch: NoisyPair, device: torch.device, dataloader_idx: int) -> NoisyPair:
        """Move every tensor of the batch but its seeds; Lightning's own method takes ten times as long."""
        moved = batch.map(lambda images: to_device(images, device))
        return moved._replace(seeds=batch.seeds)  # generators take them from the CPU

    def on_after_batch_transfer(self, batch: NoisyPair, dataloader_idx: int) -> NoisyPair:
        """Scale stored values to 1 for the range, on the device that holds the batch."""
        return scale_pair(batch, self.data.peak)


def scale_pair(pair: NoisyPair, peak: float) -> NoisyPair:
    """Scale (N, C, H, W) of any type in 0..peak to float32 in units of ``peak``, channels_last."""

    def scale(images: Tensor) -> Tensor:
        floats = images.to(torch.float32, memory_format=torch.channels_last)
        return floats / peak if floats is images else floats.div_(peak)  # stored tensors are not changed

    return pair.map(scale, "source", "target", "clean", "third")
