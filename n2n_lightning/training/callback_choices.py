"""The callbacks of ``callbacks=[...]``, ``ema`` and ``patience``: what there is to choose, checks, and building."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import (
    DeviceStatsMonitor,
    EarlyStopping,
    LearningRateMonitor,
    ModelSummary,
    RichModelSummary,
    Timer,
)

from n2n_lightning.system.safe_load import unsafe_part
from n2n_lightning.training.averaging import StepAveraging
from n2n_lightning.training.settings import Config, RunSettings
from n2n_lightning.training.signatures import Choice, Values

CALLBACKS: dict[str, type[pl.Callback]] = {
    callback.__name__: callback
    for callback in (DeviceStatsMonitor, EarlyStopping, LearningRateMonitor, ModelSummary, RichModelSummary, Timer)
}
ON_GRADIENTS = "trainer.accumulate_grad_batches=N holds for the whole run, which a resumed run relies on"
ON_WEIGHTS = "a resumed run and its checkpoints need one set of weights; ema=0.999 averages them"
REFUSED = {  # Lightning's other callbacks, and classes derived from them -> why, and what does the same
    "BackboneFinetuning": "the nets have no backbone; init_from=CHECKPOINT starts from trained weights",
    "BaseFinetuning": "the optimizer takes all weights from the start; init_from=CHECKPOINT starts from trained ones",
    "BasePredictionWriter": "training predicts nothing; python -m n2n_lightning.predict writes denoised files",
    "BatchSizeFinder": "the batch size changes the result, so it is a setting; set data.batch_size=N",
    "Checkpoint": "best.ckpt, last.ckpt and the one before are always written; save_minutes and save_steps say when",
    "GradientAccumulationScheduler": ON_GRADIENTS,
    "LambdaCallback": "functions cannot be given as settings; write a class in a plugin",
    "LearningRateFinder": "the rate is a setting; sweep it: -m optimizer.lr=0.1,0.01,0.001",
    "ModelPruning": "its checkpoints hold masks and no longer fit the net",
    "ProgressBar": "a bar is shown where the output is a terminal; trainer.enable_progress_bar=false takes it away",
    "SpikeDetection": "a loss that is NaN or infinite ends the run; trainer.gradient_clip_val=1 limits spikes",
    "StochasticWeightAveraging": ON_WEIGHTS,
    "ThroughputMonitor": "it needs a function; result.json has images_per_second",
    "WeightAveraging": ON_WEIGHTS,
}
LIGHTNINGS = {name for name in pl.callbacks.__all__ if name != "Callback"}


class CallbackChoice(Choice[pl.Callback]):
    """An entry of ``callbacks``."""

    table = CALLBACKS

    @property
    def arguments(self) -> Values:
        """Let EarlyStopping check after the validation, before the checkpoint is saved, as ``patience`` does."""
        ours = {"check_on_train_epoch_end": False} if self.name == "EarlyStopping" else {}
        return ours | super().arguments

    def faults(self) -> list[str]:
        """Return the faults of the name, the arguments, and of what the callback would save in a checkpoint."""
        name = str(self.name)
        chosen = CALLBACKS.get(name) or (getattr(pl.callbacks, name) if name in LIGHTNINGS else None)
        for kind in () if chosen is None else chosen.__mro__:
            if kind.__name__ in REFUSED:
                return [f"{self.where}: {name} is refused: {REFUSED[kind.__name__]}"]
        if faults := super().faults():
            return faults
        if name == "EarlyStopping" and self.arguments["check_on_train_epoch_end"]:
            rule = f"{self.where}: check_on_train_epoch_end must be false, got true"
            return [f"{rule}; leave it out: the check comes after the validation, before the checkpoint is saved"]
        return self.state_faults()

    def state_faults(self) -> list[str]:
        """Return the faults of what it would save."""
        try:
            state = (callback := self.build()).state_dict()
        except Exception as error:  # a user's class may raise anything about the user's settings
            return [f"{self.where}: {type(error).__name__}: {error}"]
        if part := unsafe_part(state):
            fix = "a checkpoint holds only tensors and plain types; convert it in state_dict"
            return [f"{self.where}: the state of {self.name} has more than that: {part}; {fix}"]
        saves, loads = (
            {own for own in (f"{verb}_dict", hook) if getattr(type(callback), own) is not getattr(pl.Callback, own)}
            for verb, hook in (("state", "on_save_checkpoint"), ("load_state", "on_load_checkpoint"))
        )
        if bool(saves) != bool(loads):
            given, missing = ("state_dict", "load_state_dict") if saves else ("load_state_dict", "state_dict")
            rule = f"{self.name} has {given} and no {missing}, so a resumed run would differ"
            return [f"{self.where}: {rule}; write both"]
        return []


def callback_faults(specs: Any) -> list[str]:
    """Return the faults of ``callbacks``."""
    example = "{name: LearningRateMonitor, logging_interval: step}"
    if not isinstance(specs, list):
        return [f"callbacks must be a list, got {specs!r}; write callbacks=[{example}]"]
    faults = []
    for number, spec in enumerate(specs):
        place = f"callbacks[{number}]"
        if isinstance(spec, dict) and "name" in spec:
            faults += CallbackChoice(place, spec).faults()
        else:
            faults.append(f"{place} must be a name and arguments, got {spec!r}; write {example}")
    return faults or same_state_faults(build_chosen(specs))


def build_chosen(specs: Sequence[Config]) -> list[pl.Callback]:
    """Build the callbacks of ``callbacks``."""
    return [CallbackChoice("callbacks", spec).build() for spec in specs]


def same_state_faults(callbacks: Sequence[pl.Callback]) -> list[str]:
    """Return a fault for every name under which more than one callback would save its state."""
    counts = Counter(callback.state_key for callback in callbacks if callback.state_dict())
    return [
        f"callbacks: {key} is there {count} times, and their states cannot be told apart; leave one, also of patience"
        for key, count in counts.items()
        if count > 1
    ]


def build_callbacks(settings: RunSettings, monitor: str) -> list[pl.Callback]:
    """Build the callbacks of ``callbacks``, ``ema`` and ``patience``; a ValueError if states would be mixed up."""
    callbacks = build_chosen(settings.callbacks)
    if (limit := settings.trainer.get("max_time")) is not None:
        callbacks.append(Timer(limit))  # the Trainer would add it behind the checkpoints
    if decay := settings.ema:
        on_gpu = settings.trainer.get("accelerator") != "cpu" and torch.cuda.is_available()
        device = "cuda" if on_gpu else "cpu"
        callbacks.append(StepAveraging(device, decay))
    if patience := settings.patience:
        mode = "min" if monitor == "val/loss" else "max"
        arguments: dict[str, Any] = {"mode": mode, "patience": patience, "check_on_train_epoch_end": False}
        callbacks.append(EarlyStopping(monitor, **arguments))  # checks after validation, before the checkpoint is saved
    if faults := same_state_faults(callbacks):
        raise ValueError("\n".join(faults))
    return callbacks
