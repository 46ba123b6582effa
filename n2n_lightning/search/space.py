"""The search space: settings in Hydra's sweep syntax, as Optuna's distributions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from n2n_lightning.system.errors import InputError
from n2n_lightning.system.run_names import is_named

SIGNIFICANT_DIGITS = 4  # of a drawn number, so that the names of runs can be read
EXAMPLE = "'optimizer.lr=tag(log,interval(1e-4,1e-1))'"


@dataclass(frozen=True)
class SearchSpace:
    """What a search varies, and what it keeps."""

    fixed: list[str] = field(default_factory=list)  # overrides of all trials
    keys: dict[str, str] = field(default_factory=dict)  # setting -> as it is overridden, with + where that is needed
    texts: dict[str, str] = field(default_factory=dict)  # setting -> its values, in Hydra's syntax
    distributions: dict[str, BaseDistribution] = field(default_factory=dict)  # setting -> its values

    def overrides(self, params: Mapping[str, Any]) -> list[str]:
        """Return the overrides of a trial: the fixed ones, then a value for each setting."""
        return [*self.fixed, *(f"{key}={value_text(params[name])}" for name, key in self.keys.items())]

    def samples(self) -> list[dict[str, Any]]:
        """Return parameters in which each choice of each setting is used once; the first of the others."""
        values = {name: end_values(distribution) for name, distribution in self.distributions.items()}
        first = {name: ends[0] for name, ends in values.items()}
        return [first, *(first | {name: value} for name, ends in values.items() for value in ends[1:])]

    def identity(self) -> dict[str, Any]:
        """Return what two commands of the same search have in common, as plain values."""
        fixed = sorted(word for word in self.fixed if is_named(word.lstrip("+~").partition("=")[0]) or "model=" in word)
        return {"space": dict(sorted(self.texts.items())), "fixed": fixed}


def read_space(words: Sequence[str], config_loader: ConfigLoader | None = None) -> SearchSpace:
    """Read the words of a sweep; of two words for one setting the later one counts.

    Raises:
        InputError: no setting has several values, or the values cannot be searched.
    """
    space = SearchSpace()
    fixed: dict[str, str] = {}
    for override in OverridesParser.create(config_loader=config_loader).parse_overrides(list(words)):
        key = override.get_key_element()
        name = key.lstrip("+~")
        for earlier in (fixed, space.keys, space.texts, space.distributions):
            earlier.pop(name, None)
        if override.is_sweep_override():
            space.distributions[name] = distribution_of(override)
            space.keys[name], space.texts[name] = key, override.get_value_string()
        else:
            fixed[name] = str(override.input_line) if override.is_delete() else f"{key}={given_text(override)}"
    if not space.distributions:
        raise InputError(f"a search needs a setting with several values; add {EXAMPLE}, or set hparams=study")
    space.fixed.extend(fixed.values())
    return space


def given_text(override: Override) -> str:
    """Return the value of an override that is no sweep, as it can be written again."""
    text: str = override.get_value_element_as_str()
    return text


def distribution_of(override: Override) -> BaseDistribution:
    """Return the values that a sweep of Hydra's syntax describes.

    Raises:
        InputError: there are none, or a logarithmic scale has a number that is not above 0.
    """
    sweep = override.value()
    log = "log" in getattr(sweep, "tags", ())
    try:
        if isinstance(sweep, IntervalSweep):
            low, high = sweep.start, sweep.end
            assert low is not None and high is not None  # Hydra's parser gives both
            if isinstance(low, int) and isinstance(high, int):
                return IntDistribution(low, high, log=log)
            return FloatDistribution(low, high, log=log)
        if isinstance(sweep, RangeSweep) and (numbers := list(sweep.range())):
            step = abs(sweep.step)
            if all(isinstance(number, int) for number in numbers):
                return IntDistribution(min(numbers), max(numbers), step=1 if log else int(step), log=log)
            return FloatDistribution(min(numbers), max(numbers), step=None if log else float(step), log=log)
        return CategoricalDistribution(list(dict.fromkeys(override.sweep_string_iterator())))
    except ValueError as error:
        raise InputError(f"{override.input_line} cannot be searched: {error}; write such as {EXAMPLE}") from error


def end_values(distribution: BaseDistribution) -> list[Any]:
    """Return all choices, or the two ends of a range."""
    if isinstance(distribution, (IntDistribution, FloatDistribution)):
        return list(dict.fromkeys([distribution.low, distribution.high]))
    assert isinstance(distribution, CategoricalDistribution)
    return list(distribution.choices)


def value_text(value: Any) -> str:
    """Return a drawn value as Hydra reads it; numbers are rounded to four digits."""
    return f"{value:.{SIGNIFICANT_DIGITS}g}" if isinstance(value, float) else str(value)
