"""``DenoiserModule``: the steps, the metrics and the optimizer, written once for all architectures."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, partial
from typing import Any, TypeVar

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, ReduceLROnPlateau, StepLR

from n2n_lightning.data.pairs import NoisyPair
from n2n_lightning.diagnosis.single_quality import PROBE_STEP
from n2n_lightning.losses import GIVEN_ARGUMENTS, Loss, l2, noise_floor
from n2n_lightning.metrics import (
    PairQuality,
    RestorationQuality,
    WeightedMean,
    errors_by_noisy_images,
    noise_skew,
    probed_derivative,
    psnr_db,
    sure_error,
)
from n2n_lightning.noise_variance import NoiseVariance
from n2n_lightning.self_supervised.choices import ALL_LOSSES, ASKED_ARGUMENTS, SINGLE_LOSSES, arguments_taken
from n2n_lightning.self_supervised.draws import draw
from n2n_lightning.self_supervised.neighbor2neighbor import halves_loss
from n2n_lightning.self_supervised.r2r import Line, draw_normal, variance_at
from n2n_lightning.system import plugin_loading

FORMAT = 1  # of a checkpoint's description of itself
MODULE_ARGUMENTS = ("optimizer", "loss", "scheduler")  # of every family, beside those of the net
LOGGED = (  # the scores of validation that are logged
    *("loss", "loss_floor", "psnr", "psnr_pooled", "ssim"),
    *("psnr_pairs", "psnr_pairs_low", "psnr_pairs_high", "psnr_sure"),
)
Spec = Mapping[str, Any]  # {"name": ..., argument: value, ...}
Built = TypeVar("Built")

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}


def rampdown(optimizer: torch.optim.Optimizer, T_max: int, fraction: float = 0.3) -> LambdaLR:
    """Lower the rate to 0 over the last ``fraction`` of ``T_max`` steps, as a squared half cosine.

    Source: the official code of Lehtinen et al. 2018.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must be above 0, at most 1, got {fraction}; set scheduler.fraction=0.3")

    def factor(step: int) -> float:
        left = min((T_max - step) / (fraction * T_max), 1.0)
        return (0.5 - 0.5 * math.cos(math.pi * left)) ** 2

    return LambdaLR(optimizer, factor)


def warmup_cosine(optimizer: torch.optim.Optimizer, T_max: int, warmup_steps: int = 20) -> LambdaLR:
    """Raise the rate over the first ``warmup_steps``, then lower it to 0 by step ``T_max`` as half a cosine."""
    if warmup_steps < 1:
        raise ValueError(f"warmup_steps must be 1 or more, got {warmup_steps}; set scheduler.warmup_steps=20")

    def factor(step: int) -> float:
        return min((step + 1) / warmup_steps, 1.0) * (0.5 + 0.5 * math.cos(math.pi * step / T_max))

    return LambdaLR(optimizer, factor)


SCHEDULERS: dict[str, Callable[..., LRScheduler]] = {
    "cosine": CosineAnnealingLR,
    "plateau": ReduceLROnPlateau,
    "rampdown": rampdown,
    "step": StepLR,
    "warmup_cosine": warmup_cosine,
}


def is_step_scheduler(name: str) -> bool:
    """Return whether a scheduler steps after every batch, down to the end of the run; the others do every epoch.

    It then takes ``T_max``, the number of steps of the run.
    """
    return "T_max" in inspect.signature(SCHEDULERS[name]).parameters


def build_from_spec(table: Mapping[str, Callable[..., Built]], spec: Spec, *first: Any, **defaults: Any) -> Built:
    """Call ``table[spec["name"]]`` with the spec's other entries as arguments, which override ``defaults``."""
    return table[spec["name"]](*first, **(defaults | {key: value for key, value in spec.items() if key != "name"}))


def make_optimizer(spec: Spec, parameters: Iterable[nn.Parameter], *, clips: bool = False) -> torch.optim.Optimizer:
    """Build an optimizer, fused into one kernel unless it ``clips``: Lightning may refuse to clip for fused ones."""
    can_fuse = "fused" in inspect.signature(OPTIMIZERS[spec["name"]]).parameters
    fused = {"fused": True} if can_fuse and not clips and not {"foreach", "differentiable"} & set(spec) else {}
    return build_from_spec(OPTIMIZERS, spec, parameters, **fused)


def to_channels_last(module: DenoiserModule) -> DenoiserModule:
    """Change the memory layout of the net's weights, in place, to the one that convolutions run fastest with."""
    for parameter in module.net.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return module


class DenoiserModule(pl.LightningModule):
    """Train and validate a net on ``NoisyPair`` batches.

    A subclass only has a constructor. It takes plain values, which the checkpoint saves, and sets ``self.net``. The
    optimizer, the loss and the scheduler are given as name in ``OPTIMIZERS``, ``ALL_LOSSES``, ``SCHEDULERS`` and
    arguments.
    """

    family: str
    net: nn.Module
    peak, sample_type = 255.0, "uint8"  # of the training data's files; the net sees the value ``peak`` as 1
    span: tuple[float, float] | None = None  # that clean images can have, in file values; None is 0 to ``peak``
    reach: tuple[float, float] | None = None  # largest absolute value of the darkest and the brightest training file
    variance: Line | None = None  # of the noise, as measured in single training images
    variance_is_trusted = False  # so that SURE estimates the PSNR
    recorded_plugins: Mapping[str, str] = {}  # of a loaded checkpoint: who registered what, such as ``loss=my_loss``
    gives_negatives = True  # whether the net's output can be below 0

    def __init__(self, *, optimizer: Spec, loss: Spec, scheduler: Spec | None) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.optimizer_spec, self.scheduler_spec = optimizer, scheduler
        self.train_loss, self.val_loss, self.val_floor = WeightedMean(), WeightedMean(), WeightedMean()
        self.quality, self.pair_quality = RestorationQuality(), PairQuality()
        self.sure, self.noise_level = WeightedMean(), WeightedMean()  # MSE of single images, and of these before
        self.progress = 0.0  # completed fraction of the training, for a loss that changes
        self.scores: dict[str, Any] = {}  # of the last validation
        self.train_loss.persistent(True)  # so that a run resumed within an epoch logs the mean of the whole epoch

    @cached_property  # so that a net denoises also where its loss, of a plugin, is unknown
    def loss(self) -> Loss:
        """The training loss, with its settings."""
        spec = self.hparams["loss"]
        if spec["name"] not in ALL_LOSSES:
            plugin_loading.load()
        if spec["name"] not in ALL_LOSSES:
            rule = f"loss must be one of {', '.join(ALL_LOSSES)}, got {spec['name']!r}"
            raise ValueError(f"{rule}; {plugin_loading.how_to_name(self.recorded_plugins.get('loss=' + spec['name']))}")
        return partial(ALL_LOSSES[spec["name"]], **{key: value for key, value in spec.items() if key != "name"})

    @cached_property
    def loss_takes(self) -> tuple[str, ...]:
        """What the loss asks for, of ``GIVEN_ARGUMENTS`` or, for single images, of ``ASKED_ARGUMENTS``."""
        return arguments_taken(self.loss, ASKED_ARGUMENTS if self.is_single_loss else GIVEN_ARGUMENTS)

    @property
    def is_single_loss(self) -> bool:
        """Whether the loss takes single noisy images and the net, instead of an estimate and a target."""
        return self.hparams["loss"]["name"] in SINGLE_LOSSES

    @property
    def noise(self) -> NoiseVariance | None:
        """The noise of single images, in units of the range; None if it is not known well."""
        if self.variance is None or not self.variance_is_trusted:
            return None
        channels = self.hparams["channels"]
        slope, offset = (np.broadcast_to(np.asarray(values, np.float64), channels) for values in self.variance)
        return NoiseVariance(slope, offset)

    @property
    def limits(self) -> tuple[float, float]:
        """What estimates are clipped to in scores: ``span`` in units of the range."""
        low, high = self.span or (0.0, self.peak)
        return low / self.peak, high / self.peak

    def on_fit_start(self) -> None:
        """Take range and span of the training data, which the checkpoint records."""
        datamodule = getattr(self.trainer, "datamodule", None)
        if datamodule is not None:
            data = datamodule.data
            self.peak, self.sample_type = float(data.peak), data.sample_type
            self.span, self.reach = getattr(data, "span", None), getattr(data, "reach", None)
            self.variance = getattr(data, "variance", None)
            self.variance_is_trusted = getattr(data, "variance_is_trusted", False)

    def forward(self, noisy: Tensor) -> Tensor:
        """Denoise images that are scaled to the net. (N, C, H, W) float32 -> same shape, not clipped."""
        estimate: Tensor = self.net(noisy)
        return estimate.float()

    def training_step(self, pair: NoisyPair, batch_idx: int) -> Tensor:
        """Return the loss of a batch of pairs, or of single images. (N, C, H, W) float32 -> scalar."""
        if "progress" in self.loss_takes:
            steps = self.trainer.estimated_stepping_batches  # inf where the Trainer counts time
            self.progress = self.trainer.global_step / steps if math.isfinite(steps) else 0.5
        loss = self.training_loss(pair)
        self.train_loss.update(loss.detach(), pair.counted)
        return loss if pair.weight == 1 else loss * pair.weight

    def training_loss(self, pair: NoisyPair) -> Tensor:
        """Return the loss of a batch, and change nothing. (N, C, H, W) float32 -> scalar."""
        if pair.target is None:
            return self.single_loss(self, pair)
        return self.pair_loss(self(pair.source), pair.target, pair)

    def pair_loss(self, estimate: Tensor, target: Tensor, pair: NoisyPair) -> Tensor:
        """Return the loss, with masked-out pixels set to 0. (N, C, H, W) float32 twice -> scalar."""
        source = pair.source
        if estimate.shape != target.shape:  # of a plugin's net; most losses would broadcast
            shapes = f"{tuple(target.shape)}, got {tuple(estimate.shape)}"
            raise ValueError(f"model={self.family} must keep the shape {shapes}; try check_net of plugins")
        if pair.mask is not None:
            estimate, target, source = (images * pair.mask for images in (estimate, target, source))
        if self.is_single_loss:  # trained on single images, scored by clean ones
            return l2(estimate, target)
        progress = self.progress if self.training else 0.5  # the same in each validation, so that epochs compare
        given = {"progress": progress, "source": source}
        loss = self.loss(estimate, target, **{name: given[name] for name in self.loss_takes})
        if not isinstance(loss, Tensor) or loss.ndim:  # of a plugin
            found = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            raise ValueError(
                f"loss={self.hparams['loss']['name']} must return a scalar tensor, got {found}; take .mean()"
            )
        return loss

    def single_loss(self, net: Callable[[Tensor], Tensor], pair: NoisyPair) -> Tensor:
        """Return the loss of a net for a batch of single noisy images. (N, C, H, W) float32 -> scalar.

        A loss of pairs compares the halves of Neighbor2Neighbor.
        """
        assert pair.seeds is not None
        if not self.is_single_loss:
            return halves_loss(net, self.loss, pair.source, pair.seeds)
        given = {"progress": self.progress if self.training else 0.0, "variance": self.variance}
        return self.loss(net, pair.source, pair.seeds, **{name: given[name] for name in self.loss_takes})

    def on_train_epoch_start(self) -> None:
        self.train_loss.reset()

    def validation_step(self, pair: NoisyPair, batch_idx: int) -> Tensor:
        """Score the batch, and return the estimate for the callbacks. (N, C, H, W) float32 -> same shape."""
        estimate: Tensor = self(pair.source).clone()  # CUDA graphs of compile=reduce-overhead would overwrite it
        reference = pair.target if pair.clean is None else pair.clean
        loss = self.single_loss(self, pair) if reference is None else self.pair_loss(estimate, reference, pair)
        self.val_loss.update(loss, pair.counted)
        if pair.clean is not None:
            n = pair.counted
            self.quality.update(pair.source[:n], estimate[:n], pair.clean[:n], self.limits)
        if pair.target is not None:
            self.score_pair(pair, estimate)
        elif pair.clean is None and self.variance_is_trusted:
            self.score_single(pair, estimate)
        return estimate

    def score_pair(self, pair: NoisyPair, estimate: Tensor) -> None:
        """Score an estimate by two or more noisy images of a scene, without a clean one. (N, C, H, W) float32."""
        noisy, second, third = pair.source, pair.target, pair.third
        assert second is not None
        errors, noisy_errors = errors_by_noisy_images(self, estimate, noisy, second, third, self.limits)
        group = None if pair.group is None else pair.group[: pair.counted]
        self.pair_quality.update(errors[: pair.counted], noisy_errors[: pair.counted], group)
        floor = noise_floor(self.hparams["loss"]["name"], noisy, second, third) if pair.clean is None else None
        if floor is not None:
            self.val_floor.update(floor, pair.counted)

    def score_single(self, pair: NoisyPair, estimate: Tensor) -> None:
        """Score an estimate by its noisy image alone, with random probes (Ramani et al. 2008). (N, C, H, W)."""
        assert self.variance is not None and pair.seeds is not None
        noisy = pair.source
        variance = variance_at(estimate, self.variance)
        slope, offset = (torch.tensor(values, device=noisy.device).reshape(-1, 1, 1) for values in self.variance)
        (normal,) = draw(pair.seeds, noisy, lambda count, rng: (draw_normal(noisy, count, rng),))
        step = PROBE_STEP * variance.mean().sqrt()
        skew, device = noise_skew(variance, slope, offset), noisy.device.type
        rounded = torch.is_autocast_enabled(device)  # to 16 bits, in which so small a step drowns
        with torch.autocast(device, enabled=False):
            exact = self(noisy) if rounded else estimate
            derivative = probed_derivative(self, noisy, exact, normal, step, skew)
        self.sure.update(sure_error(estimate, noisy, variance, derivative).mean(), pair.counted)
        self.noise_level.update(variance.mean(), pair.counted)

    def on_validation_epoch_start(self) -> None:
        for metric in (self.val_loss, self.val_floor, self.quality, self.pair_quality, self.sure, self.noise_level):
            metric.reset()

    def on_validation_epoch_end(self) -> None:
        self.scores = {"loss": self.val_loss.compute().item()}
        if self.val_floor.update_count:
            self.scores["loss_floor"] = max(self.val_floor.compute().item(), 0.0)
        for metric in (self.pair_quality, self.quality):
            if metric.update_count:
                self.scores |= metric.compute()
        if self.sure.update_count:
            error, noise_level = self.sure.compute(), self.noise_level.compute()
            self.scores["psnr_sure"] = psnr_db(error if error > 0 else noise_level).item()  # below 0 is no merit
            self.scores["noisy_psnr_sure"] = psnr_db(noise_level).item()
        shown = {"psnr", "psnr_pairs", "psnr_sure"} & self.scores.keys() or {"loss"}  # in the progress bar
        for name in LOGGED:
            if name in self.scores:
                self.log(f"val/{name}", self.scores[name], prog_bar=name in shown, logger=False)
        for config in self.trainer.lr_scheduler_configs:
            if isinstance(config.scheduler, ReduceLROnPlateau) and not self.trainer.sanity_checking:
                config.scheduler.step(self.scores["loss"])

    def configure_optimizers(self) -> Any:
        clips = self._trainer is not None and self._trainer.gradient_clip_val
        optimizer = make_optimizer(self.optimizer_spec, self.net.parameters(), clips=bool(clips))
        if self.scheduler_spec is None:
            return optimizer
        by_step = is_step_scheduler(self.scheduler_spec["name"])
        defaults = {"T_max": int(self.trainer.estimated_stepping_batches)} if by_step else {}
        scheduler = build_from_spec(SCHEDULERS, self.scheduler_spec, optimizer, **defaults)
        never = isinstance(scheduler, ReduceLROnPlateau)  # on_validation_epoch_end steps it, before the checkpoint
        rule = {
            "scheduler": scheduler,
            "interval": "step" if by_step else "epoch",
            "frequency": sys.maxsize if never else 1,
            "monitor": "val/loss",
        }
        return {"optimizer": optimizer, "lr_scheduler": rule}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the description that ``load_denoiser`` needs beside the hyper-parameters."""
        about: dict[str, Any] = {"peak": self.peak, "sample_type": self.sample_type}
        about["span"] = list(self.span or (0.0, self.peak))
        if self.reach is not None:
            about["reach"] = list(self.reach)
        if self.variance is not None:
            about["variance"] = [list(values) for values in self.variance]  # slope and offset of each channel
            about["variance_is_trusted"] = self.variance_is_trusted
        used = {"model": {"family": self.family}} | {group: self.hparams[group] for group in ("optimizer", "loss")}
        if registered := plugin_loading.plugins_of(used):
            about["plugins"] = registered  # names for people; loading imports none of them
        checkpoint["n2n_lightning"] = {"format": FORMAT, "family": self.family} | about

    @torch.no_grad()
    def denoise(self, images: Tensor) -> Tensor:
        """Denoise images. (N, C, H, W), any H and W from 1 px -> same shape and type.

        The range of floats is [0, 1], and the result is not clipped. The range of uint8 ends at 255, of other integers
        at that of the training data (``peak``); the result is rounded and clipped to the type.
        """
        channels = self.hparams["channels"]
        if images.ndim != 4 or images.shape[1] != channels or 0 in images.shape:
            raise ValueError(f"images must be (N, {channels}, H, W), got {tuple(images.shape)}; reshape them first")
        if images.dtype == torch.bool or images.is_complex():
            raise ValueError(f"images must be floats or integers, got {images.dtype}; convert them")
        was_training = self.training
        self.eval()
        scale = 1.0 if images.is_floating_point() else 255.0 if images.dtype == torch.uint8 else self.peak
        noisy = images.to(self.device, torch.float32, memory_format=torch.channels_last) / scale
        estimate: Tensor = self(noisy) * scale
        self.train(was_training)
        if not images.is_floating_point():
            limits = torch.iinfo(images.dtype)
            estimate = estimate.round().clamp(limits.min, limits.max)
        return estimate.to(images.device, images.dtype)
