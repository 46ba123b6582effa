"""Training on arrays in memory, without a folder for the run: ``Denoiser.fit``."""

from __future__ import annotations

import math
import time
import warnings
from dataclasses import replace
from numbers import Integral, Real
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from n2n_lightning.data.array_forms import noisy_images
from n2n_lightning.data.arrays import ArrayData
from n2n_lightning.data.datamodule import NoisyPairDataModule
from n2n_lightning.models.module import DenoiserModule
from n2n_lightning.training.budget import set_length
from n2n_lightning.training.build import build_module, compose_own_images
from n2n_lightning.training.checkpointing import FiniteLoss
from n2n_lightning.training.filter_scores import RANDOM_START
from n2n_lightning.training.initial_weights import find_initial, net_arguments, start_from, starts_trained
from n2n_lightning.training.precision_choice import choose_precision
from n2n_lightning.training.run import quiet_lightning
from n2n_lightning.training.settings import LossChoice, RunSettings
from n2n_lightning.training.single_noise import MeasuredNoise, measure_variance, read_crops
from n2n_lightning.training.value_checks import value_warnings

MOST_BATCH = 64  # crops; a batch of small crops holds as many pixels as one of large ones


class TrainingPairs(NoisyPairDataModule):
    """Loaders of ``ArrayData`` without validation."""

    def setup(self, stage: str) -> None:
        if "train" not in self.sources:
            self.sources["train"] = self.data.load("train")


def first_module(settings: RunSettings, channels: int) -> tuple[DenoiserModule, str]:
    """Build the module that training starts from, for images of C channels, and return it with a line about it."""
    module, initial = build_module(settings, channels), find_initial(settings)
    start = None if initial is None else start_from(initial, module, str(settings.init_from))
    return module.eval(), start or RANDOM_START


def settings_of(module: DenoiserModule) -> RunSettings:
    """Return the settings with which a trained module goes on."""
    config, given = compose_own_images(None).as_config(), module.hparams
    model = {"family": module.family, **net_arguments(module)}
    scheduler = given.get("scheduler") or {"name": None}
    groups = {"model": model, "scheduler": scheduler, "optimizer": given["optimizer"], "loss": given["loss"]}
    return RunSettings.unchecked(config | groups)


def data_of_arrays(source: Any, target: Any | None, channels: int | None) -> ArrayData:
    """Return noisy images, all of them for training, in crops as large as the smallest image allows.

    Args:
        source, target: see ``noisy_images``; integers or floats; target None: single images.
        channels: number of channels of the images; None if unknown.

    Raises:
        ValueError: they are no images, or no pairs.
    """
    given = {"source": source} if target is None else {"source": source, "target": target}
    shapes = [
        [np.shape(image) for image in images] if isinstance(images, (list, tuple)) else tuple(np.shape(images))
        for images in given.values()
    ]
    if shapes[0] != shapes[-1]:
        raise ValueError(
            f"source and target must be of one shape, got {shapes[0]} and {shapes[1]}; crop or reorder one of them"
        )
    arrays = {name: noisy_images(images, name, channels) for name, images in given.items()}
    first = arrays["source"]
    if not len(first):
        raise ValueError(f"{' and '.join(given)} must hold an image or more, got none; add some")
    found = first[0].shape[2]
    if channels is not None and found != channels:
        raise ValueError(f"source must have {channels} channels as before, got {found}; make a new Denoiser")
    if all((image == image[0, 0, 0]).all() for images in arrays.values() for image in images):
        raise ValueError(f"{' and '.join(given)} must hold images, got arrays of one value each; there is no scene")
    data = ArrayData(source=first, target=arrays.get("target"), val_fraction=0, skip_bad=True)
    data.crop_px = min(data.crop_px or 1, *(side for image in first for side in image.shape[:2]))
    data.train_pairs = max(math.ceil(sum(math.prod(image.shape[:2]) for image in first) / data.crop_px**2), 1)
    return data


def choose_loss(datamodule: NoisyPairDataModule, data: ArrayData) -> tuple[dict[str, Any], MeasuredNoise]:
    """Return the loss that suits single images: R2R where their noise is known well, otherwise Neighbor2Neighbor."""
    noise = measure_variance(read_crops(datamodule))
    data.variance, data.variance_is_trusted = noise.variance, noise.is_trusted
    if not noise.is_trusted:
        needed = "training is by Neighbor2Neighbor, which needs noise that is independent from pixel to pixel"
        noise = replace(noise, text=f"{noise.text}; {needed}")
    return {"name": "r2r" if noise.is_trusted else "neighbor2neighbor"}, noise


def use_loss(module: DenoiserModule, spec: dict[str, Any]) -> None:
    """Let a module go on with another loss, of this name and with these arguments."""
    module.hparams["loss"] = spec
    for name in ("loss", "loss_takes"):
        module.__dict__.pop(name, None)  # cached


def with_length(settings: RunSettings, data: ArrayData, epochs: int | None, batch_size: int | None) -> RunSettings:
    """Set epochs, crops and batch; by default as many pixels as the command line takes, in crops of any size."""
    default = settings.data.values
    scale = (default["crop_px"] / (data.crop_px or 1)) ** 2  # crops that hold as many pixels
    if epochs is None:
        data.train_pairs = math.ceil(default["train_pairs"] * scale)
    else:
        settings = replace(settings, trainer=settings.trainer | {"max_epochs": int(epochs)})
    batch_size = int(batch_size or 0) or min(round(default["batch_size"] * scale), MOST_BATCH)
    return replace(settings, data=settings.data.with_values(train_pairs=data.train_pairs, batch_size=batch_size))


def device_arguments(device: str) -> dict[str, Any]:
    """Return the Trainer's arguments for a device such as "auto", "cpu", "cuda" or "cuda:1"."""
    if device == "auto":
        return {"accelerator": "auto", "devices": 1}
    try:
        found = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # AssertionError: a torch that was built without it
        reason = str(error).partition("\n")[0]
        raise ValueError(f"device {device!r} cannot be used ({reason}); give device='cpu' or 'auto'") from error
    accelerator = "gpu" if found.type == "cuda" else found.type
    return {"accelerator": accelerator, "devices": [found.index] if found.type == "cuda" else 1}


def check_arguments(epochs: int | None, minutes: float | None, batch_size: int | None, seed: int) -> None:
    """Raise ValueError for a length, a batch or a seed that cannot be."""
    for name, count, least in (("epochs", epochs, 1), ("batch_size", batch_size, 1), ("seed", seed, 0)):
        is_default = count is None and name != "seed"
        if not is_default and not (isinstance(count, Integral) and count >= least):
            raise ValueError(f"{name} must be an integer of {least} or more, got {count!r}; leave it out")
    if minutes is not None and not (isinstance(minutes, Real) and 0 < minutes < math.inf):
        raise ValueError(f"minutes must be a number above 0, got {minutes!r}; set minutes=5")
    if epochs is not None and minutes is not None:
        raise ValueError(f"either epochs or minutes must be given, got epochs={epochs} and minutes={minutes}")


def fit_arrays(
    module: DenoiserModule | None,
    model: str | None,
    source: Any,
    target: Any,
    *,
    epochs: int | None,
    minutes: float | None,
    batch_size: int | None,
    device: str,
    progress: bool,
    seed: int,
) -> tuple[DenoiserModule, str | None]:
    """Train, and return the module and a line about what it started from, None if it went on.

    Args:
        module: goes on with its training; None starts one.
        model: a name in ``conf/model``, or None; see ``compose_own_images``.

    The other arguments are those of ``Denoiser.fit``.
    """
    began, start = time.monotonic(), None
    check_arguments(epochs, minutes, batch_size, seed)
    settings = compose_own_images(model) if module is None else settings_of(module)
    trainer = settings.trainer | {"limit_val_batches": 0} | device_arguments(device)
    settings, precision = choose_precision(replace(settings, minutes=minutes, seed=int(seed), trainer=trainer))
    data = data_of_arrays(source, target, None if module is None else int(module.hparams["channels"]))
    settings = with_length(settings, data, epochs, batch_size)
    if module is not None:
        data.use_training_range(module.peak, module.sample_type, module.reach)
    quiet_lightning()
    datamodule = TrainingPairs(data, batch_size=settings.data.values["batch_size"], seed=seed)
    datamodule.setup("fit")
    length = noise = None
    if target is None:
        loss, noise = choose_loss(datamodule, data)
        settings = replace(settings, loss=LossChoice("loss", loss))
    if minutes:
        channels = datamodule.image_shape[0]
        trained = module is not None or starts_trained(settings, find_initial(settings), channels)
        settings, length = set_length(settings, datamodule, time.monotonic() - began, starts_trained=trained)
    pl.seed_everything(seed, verbose=False)
    if module is None:
        module, start = first_module(settings, datamodule.image_shape[0])
    elif noise:
        use_loss(module, settings.loss.values)
    doubts = [noise.text] if noise and not noise.is_trusted else []
    for text in [*data.warnings, *doubts, *value_warnings(module, datamodule)]:
        warnings.warn(text, stacklevel=3)
    if progress:
        known = noise.text if noise and not doubts else None
        print("\n".join(text for text in (known, start, precision, length) if text))
    run_training(module, settings, datamodule, progress=progress)
    return module, start


def run_training(module: DenoiserModule, settings: RunSettings, datamodule: TrainingPairs, *, progress: bool) -> None:
    """Train to the end, and leave the module in evaluation mode on the device that trained it."""
    trainer = pl.Trainer(
        **settings.trainer,
        callbacks=[FiniteLoss()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=progress,
        enable_model_summary=False,
    )
    module.train()
    trainer.fit(module, datamodule)
    module.eval().to(trainer.strategy.root_device)
