"""The length of a run from a budget of time: ``minutes``."""

from __future__ import annotations

import math
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from n2n_lightning.data.datamodule import NoisyPairDataModule
from n2n_lightning.data.frame_data import FrameData
from n2n_lightning.data.scene_data import SceneData
from n2n_lightning.system.atomic import read_json
from n2n_lightning.training.build import build_module
from n2n_lightning.training.graph_choice import graph_recorder
from n2n_lightning.training.graph_step import WARM_UP, use_graphs
from n2n_lightning.training.settings import RunSettings
from n2n_lightning.training.trainer_settings import ONE_DEVICE, trainer_arguments

WARM_STEPS = WARM_UP + 1  # the first steps are slower, and the last of these may capture a graph
MEASURED_S, MEASURED_STEPS = 4.0, 8  # of steps that are measured, at least
MOST_STEPS, MOST_SHARE = 200, 0.1  # that are measured; part of the time that this takes; at most
STEADY = 1.5  # median of the steps in units of the fastest; above it, other work disturbs, and more are measured
LEAST_STEPS = 10  # in an epoch: there are fewer epochs where the time is short
VALIDATION_SHARE = 0.15  # of the time, at most: there are fewer epochs where it would take more
MOST_PASSES = 100  # over the pixels of noisy frames; beyond, a net that starts trained learns their noise by heart
SPENT_ON_THE_REST = 0.04  # part of the time: start-up, checkpoints, pictures, filters


class StepTimes(pl.Callback):
    """Measure the seconds of a training step and of a validation, and end the training when they are known.

    ``most_s`` is how long steps are measured at most, in seconds.
    """

    def __init__(self, most_s: float) -> None:
        self.most_s, self.began = most_s, time.monotonic()
        self.seconds: list[float] = []  # of each step
        self.validation_s = 0.0

    @property
    def measured(self) -> list[float]:
        """The seconds of the steps after the first ones."""
        return self.seconds[WARM_STEPS:] or self.seconds[-1:]

    @property
    def is_steady(self) -> bool:
        return statistics.median(self.measured) <= STEADY * min(self.measured)

    @property
    def step_s(self) -> float:
        """Seconds of a step: the median; where other work disturbed to the end, the mean of the later half."""
        found = self.measured
        return statistics.median(found) if self.is_steady else statistics.fmean(found[len(found) // 2 :])

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        outputs["loss"].item()  # waits for the device
        now = time.monotonic()
        self.seconds.append(now - self.began)
        self.began = now
        if len(self.seconds) > WARM_STEPS:
            elapsed = sum(self.measured)
            enough = elapsed > MEASURED_S and len(self.measured) >= MEASURED_STEPS and self.is_steady
            trainer.should_stop = enough or elapsed > self.most_s

    def on_validation_start(self, *_: Any) -> None:
        self.began = time.monotonic()

    def on_validation_end(self, *_: Any) -> None:
        self.validation_s = time.monotonic() - self.began


def has_length(settings: RunSettings, folder: Path) -> bool:
    """Return whether a run of the same budget in ``folder`` has recorded its length, and is to go on."""
    recorded = read_json(folder / "result.json").get("config") or {}
    return settings.resume and recorded.get("minutes") == settings.minutes


def recall_length(settings: RunSettings, folder: Path) -> RunSettings:
    """Return the settings with the length that a run of the same budget in ``folder`` has recorded, if there is one."""
    if settings.minutes is None or not has_length(settings, folder):
        return settings
    recorded = read_json(folder / "result.json")["config"]
    data = settings.data
    if "train_pairs" in data.values and "train_pairs" in recorded["data"]:
        data = data.with_values(train_pairs=recorded["data"]["train_pairs"])
    return replace(settings, data=data, trainer=settings.trainer | {"max_epochs": recorded["trainer"]["max_epochs"]})


def set_length(
    settings: RunSettings, datamodule: NoisyPairDataModule, spent_s: float, *, starts_trained: bool
) -> tuple[RunSettings, str]:
    """Measure the speed of training, and set the length so that the run ends within ``minutes``.

    Data that are cropped get an epoch of ``LEAST_STEPS`` at least, also where this takes longer. A net that starts
    trained gets ``MOST_PASSES`` over the frames of pairs and bursts, also where there is more time.

    Args:
        settings: of the run.
        datamodule: set up for "fit"; ``train_pairs`` of data that are cropped is set.
        spent_s: seconds of the budget that are gone.
        starts_trained: the net starts from trained weights.

    Returns:
        The settings with this ``data.train_pairs`` and ``trainer.max_epochs``, and a line about the length.
    """
    minutes, began = settings.minutes or 0.0, time.monotonic()
    data, batch = datamodule.data, datamodule.batch_size
    times = measure(settings, datamodule, MOST_SHARE * minutes * 60)
    left_s = minutes * 60 * (1 - SPENT_ON_THE_REST) - spent_s - (time.monotonic() - began)
    left_s -= times.validation_s if starts_trained else 0  # of the start
    epochs, steps, is_enough = settings.trainer["max_epochs"], len(datamodule.loader("train")), False
    if isinstance(data, SceneData):
        enough = sys.maxsize  # steps
        if starts_trained and isinstance(data, FrameData) and datamodule.sources["train"].has_pairs:
            enough = math.ceil(MOST_PASSES * data.training_px / (math.prod(data.content.crop) * batch))
        of_validation = int(left_s * VALIDATION_SHARE / max(times.validation_s, 1e-3))
        of_steps = int(left_s / (LEAST_STEPS * times.step_s + times.validation_s))
        epochs = max(min(epochs, of_validation, of_steps, enough // LEAST_STEPS), 1)
        of_time, of_passes = int((left_s / epochs - times.validation_s) / times.step_s), -(-enough // epochs)
        steps, is_enough = max(min(of_time, of_passes), LEAST_STEPS), of_passes < of_time
        data.train_pairs = steps * batch
        settings = replace(settings, data=settings.data.with_values(train_pairs=data.train_pairs))
        datamodule.sources.clear()
        datamodule.setup("fit")
    else:
        epochs = max(int(left_s / (steps * times.step_s + times.validation_s)), 1)
    settings = replace(settings, trainer=settings.trainer | {"max_epochs": epochs})
    line = f"{minutes:g} min: {epochs} epochs of {steps} steps of {batch} ({times.step_s * 1000:.0f} ms a step)"
    if is_enough:
        line += f"; so many pass {MOST_PASSES} times over the frames, more would learn their noise by heart"
    return settings, line


def measure(settings: RunSettings, datamodule: NoisyPairDataModule, most_s: float) -> StepTimes:
    """Train a net like that of the run for some seconds, at most ``most_s``, and forget it."""
    times = StepTimes(most_s)
    limits = {"max_epochs": 1, "min_epochs": None, "min_steps": None, "limit_train_batches": MOST_STEPS}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "profiler": None, "callbacks": [times]}
    trainer = pl.Trainer(**trainer_arguments(settings.trainer | ONE_DEVICE) | limits | quiet)
    use_graphs(trainer, graph_recorder(settings))
    loader = dict(settings.data.loader)
    ranks = settings.trainer.get("devices", 1) * settings.trainer.get("num_nodes", 1)
    loader |= {"batch_size": -(-datamodule.batch_size // ranks)}  # a rank's share; the exchange is not measured
    trial = type(datamodule)(datamodule.data, seed=settings.seed, **loader)
    trainer.fit(build_module(settings, datamodule.image_shape[0]), trial)
    return times
