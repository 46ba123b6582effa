"""What a run is made of: its settings and groups, each checked and built as one object."""

from __future__ import annotations

import inspect
import typing
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from n2n_lightning.data.choices import DATA
from n2n_lightning.data.datamodule import NoisyPairDataModule
from n2n_lightning.data.pairs import PairData
from n2n_lightning.losses import GIVEN_ARGUMENTS
from n2n_lightning.models.families import FAMILIES
from n2n_lightning.models.module import (
    MODULE_ARGUMENTS,
    OPTIMIZERS,
    SCHEDULERS,
    DenoiserModule,
    is_step_scheduler,
    make_optimizer,
)
from n2n_lightning.noise.choices import NOISES
from n2n_lightning.noise.kinds import Noise
from n2n_lightning.self_supervised.choices import ALL_LOSSES, OF_SINGLE_LOSSES, SINGLE_LOSSES
from n2n_lightning.training.signatures import Choice, argument_faults, construction_faults

Config = dict[str, Any]  # plain values, as Hydra composes them and ``result.json`` records them
LOADER_KEYS = tuple(name for name in inspect.signature(NoisyPairDataModule).parameters if name not in ("data", "seed"))


class DataChoice(Choice[PairData]):
    """The group ``data``: a data source with its arguments, and those of the data module, which loads it."""

    table, given, also = DATA, ("noise",), LOADER_KEYS

    @property
    def loader(self) -> Config:
        """The arguments of the data module."""
        return {key: value for key, value in self.values.items() if key in LOADER_KEYS}

    def faults(self) -> list[str]:
        return super().faults() + argument_faults("data", NoisyPairDataModule, self.loader, given=("data",))


class NoiseChoice(Choice[Noise]):
    """The group ``noise``: a corruption of clean images. Each step of a chain is such a choice too."""

    table = NOISES

    def faults(self) -> list[str]:
        faults = super().faults()
        steps = self.values["steps"] if self.name == "chain" and not faults else ()
        for number, step in enumerate(steps):
            place = f"{self.where}.steps[{number}]"
            if isinstance(step, dict):
                faults += NoiseChoice(place, step).faults()
            else:
                fix = "write {name: gaussian, ...}"
                faults.append(f"{place} must be a corruption and its settings, got {step!r}; {fix}")
        return faults or construction_faults(self.where, self.build)


class LossChoice(Choice[Tensor]):
    """The group ``loss``. A module looks the function up itself, because its checkpoint saves the name."""

    table = ALL_LOSSES

    def faults(self) -> list[str]:
        name = str(self.name)
        if name not in self.table:
            return super().faults()
        given = OF_SINGLE_LOSSES if name in SINGLE_LOSSES else ("estimate", "target", *GIVEN_ARGUMENTS)
        return argument_faults(self.where, self.table[name], self.arguments, given=given)


class OptimizerChoice(Choice[Optimizer]):
    """The group ``optimizer``; built by the module."""

    table, given = OPTIMIZERS, ("params", "differentiable")

    def faults(self) -> list[str]:
        faults, rate = super().faults(), self.values.get("lr")
        if isinstance(rate, (int, float)) and not faults and not rate > 0:
            faults.append(f"optimizer.lr must be above 0, got {rate:g}; leave it out for the rate that suits the model")
        return faults or construction_faults("optimizer", lambda: make_optimizer(self.values, one_weight()))


class SchedulerChoice(Choice[LRScheduler]):
    """The group ``scheduler``; built by the module. The name is None for a constant learning rate."""

    table, given = SCHEDULERS, ("optimizer", "T_max")

    def faults(self) -> list[str]:
        if self.name is None:
            return []
        faults, size = super().faults(), self.values.get("step_size")
        if isinstance(size, int) and size < 1:
            faults.append(f"scheduler: step_size must be 1 or more, got {size}; set scheduler.step_size=10")
        if faults:
            return faults
        steps = {"T_max": 1} if is_step_scheduler(self.name) else {}
        return construction_faults("scheduler", lambda: self.build(torch.optim.SGD(one_weight()), **steps))


class ModelChoice(Choice[DenoiserModule]):
    """The group ``model``: a family and the arguments of its net."""

    table, key, given = FAMILIES, "family", (*MODULE_ARGUMENTS, "channels")


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """What pairs of images are made of; ``evaluate`` and ``doctor`` have no other groups."""

    seed: int = 0
    noise: NoiseChoice
    data: DataChoice

    @classmethod
    def unchecked(cls, config: Config) -> Self:
        """Return the settings of a configuration that is known to be right; other keys are ignored."""
        kinds = typing.get_type_hints(cls)
        given = {name: value for name, value in config.items() if name in kinds}
        return cls(**given | {name: kinds[name](name, given[name]) for name in given if is_choice_type(kinds[name])})

    def as_config(self) -> Config:
        """Return the plain values, in the order in which the class names them."""
        found = {name: getattr(self, name) for name in inspect.get_annotations(type(self))}
        return {name: value.values if isinstance(value, Choice) else value for name, value in found.items()}


@dataclass(frozen=True, kw_only=True)
class RunSettings(DataSettings):
    """What a run is made of: every setting of ``train``, in the order of ``conf/train.yaml``, which explains them.

    ``check.check_config`` makes it of a configuration that has no faults.
    """

    study: str
    seed: int  # 0..2^32 - 1
    resume: bool
    init_from: str | None  # a checkpoint, or "auto"
    minutes: float | None
    ema: float | None  # above 0, below 1
    compile: bool | Literal["reduce-overhead", "max-autotune"]
    graph: bool | Literal["auto"]
    save_minutes: float | None
    save_steps: int | None
    logger: Config  # name in ``loggers.LOGGERS`` -> its arguments
    callbacks: list[Config]  # each for a ``callback_choices.CallbackChoice``
    patience: int | None  # epochs
    plugins: list[str]  # modules
    noise: NoiseChoice
    loss: LossChoice
    scheduler: SchedulerChoice
    optimizer: OptimizerChoice
    model: ModelChoice
    data: DataChoice
    trainer: Config  # arguments of Lightning's Trainer; ``trainer_settings`` says which


def one_weight() -> list[torch.nn.Parameter]:
    """Return what an optimizer takes, to try one."""
    return [torch.nn.Parameter(torch.zeros(1))]


def is_choice_type(kind: Any) -> bool:
    """Return whether the type of a setting is a ``Choice``."""
    return inspect.isclass(kind) and issubclass(kind, Choice)


def setting_types() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings of a run that are groups, and those that are not: name -> type."""
    kinds = typing.get_type_hints(RunSettings)
    groups = {name: kind for name, kind in kinds.items() if is_choice_type(kind) or kind == Config}
    return groups, {name: kind for name, kind in kinds.items() if name not in groups}
