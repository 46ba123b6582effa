"""Check plain values against the signature of the function or class that they are passed to, and pass them."""

from __future__ import annotations

import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, Self, TypeVar

from n2n_lightning.models.net_family import type_hints
from n2n_lightning.system.errors import suggest

Built = TypeVar("Built")
Values = dict[str, Any]  # plain ones, as YAML has them


@dataclass(frozen=True)
class Choice(Generic[Built]):
    """A name in a table and the arguments of what the table has there: ``{name: adam, lr: 0.001}``.

    Args:
        where: its place in the configuration, for the messages.
        values: the name and the arguments, as the user set them.
    """

    where: str
    values: Values
    table: ClassVar[Mapping[str, Callable[..., Any]]]
    key: ClassVar[str] = "name"  # of ``values``, for the name
    given: ClassVar[Sequence[str]] = ()  # arguments that our code passes
    also: ClassVar[Sequence[str]] = ()  # keys of ``values`` that are arguments of another function

    @property
    def name(self) -> str | None:
        """The chosen name; None if nothing is chosen."""
        name = self.values.get(self.key)
        return None if name is None else str(name)

    @property
    def chosen(self) -> Values | None:
        """The values; None if nothing is chosen."""
        return None if self.name is None else self.values

    @property
    def arguments(self) -> Values:
        """The arguments, without those of another function."""
        return {key: value for key, value in self.values.items() if key != self.key and key not in self.also}

    def with_values(self, **changes: Any) -> Self:
        """Return the choice with some values changed."""
        return replace(self, values=self.values | changes)

    def faults(self) -> list[str]:
        """Return what is wrong with the name and the arguments, a line for each."""
        name = str(self.name)
        if name not in self.table:
            rule = f"{self.where}.{self.key} must be one of {', '.join(self.table)}, got {name!r}"
            return [rule + suggest(name, self.table)]
        return argument_faults(self.where, self.table[name], self.arguments, given=self.given, also=self.also)

    def build(self, *given: Any, **more: Any) -> Built:
        """Build what is chosen. The arguments override ``more``."""
        built: Built = self.table[str(self.name)](*given, **more | self.arguments)
        return built


def argument_faults(
    where: str, function: Callable[..., Any], arguments: Values, *, given: Sequence[str] = (), also: Sequence[str] = ()
) -> list[str]:
    """Return the faults of calling ``function`` with ``arguments``.

    Args:
        where: the group of settings, for the messages.
        function: a function or class.
        arguments: argument -> value, as the user set them.
        given: arguments that our code passes.
        also: settings of the same group that another function takes, for the hints on misspelt ones.
    """
    every = inspect.signature(function).parameters.values()
    parameters = {p.name: p for p in every if p.name not in given and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in every)
    faults, hints = [], type_hints(function)
    for name, value in arguments.items():
        if name not in parameters and takes_any:
            continue
        if name not in parameters:
            names = [*parameters, *also]
            takes = ", ".join(names) or "no settings"
            faults.append(f"{where}.{name} is no setting here{suggest(name, names)}; {where} takes {takes}")
        elif not fits(value, hints.get(name, Any)):
            expected = describe_type(hints[name])
            faults.append(f"{where}.{name} must be {expected}, got {value!r}; set {where}.{name} to such a value")
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in arguments:
            faults.append(f"{where}.{name} is needed and not set; set {where}.{name}=...")
    return faults


def construction_faults(where: str, make: Callable[[], object]) -> list[str]:
    """Call a constructor, which needs no data, and return its error as a fault."""
    try:
        make()
    except Exception as error:  # a library's constructor may raise anything about the user's settings
        return [f"{where}: {error}"]
    return []


def fits(value: Any, hint: Any) -> bool:
    """Return whether a plain value, from YAML, fits a type hint. Any value fits a hint that YAML cannot express."""
    origin, choices = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, choice) for choice in choices)
    if origin is typing.Literal:
        return value in choices
    if origin in (list, tuple, Sequence):
        items = [choice for choice in choices if choice is not Ellipsis]
        if origin is tuple and Ellipsis not in choices and isinstance(value, (list, tuple)):
            return len(value) == len(items) and all(map(fits, value, items))
        return isinstance(value, (list, tuple)) and all(fits(item, items[0]) for item in value)
    if hint in (int, float):
        return isinstance(value, (int, hint)) and not isinstance(value, bool) and math.isfinite(value)
    if hint in (str, bool, types.NoneType):
        return isinstance(value, hint)
    return hint is Any or not inspect.isclass(hint)


def describe_type(hint: Any) -> str:
    """Describe a type hint in words."""
    origin, choices = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return " or ".join(map(repr, choices))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe_type(choice) for choice in choices if is_plain_type(choice))
    if origin in (list, tuple, Sequence):
        return "a list" if origin is not tuple or Ellipsis in choices else f"a list of {len(choices)}"
    words = {int: "an integer", float: "a number", str: "text", bool: "true or false", types.NoneType: "null"}
    return words.get(hint, str(hint))


def is_plain_type(hint: Any) -> bool:
    """Return whether YAML can express a type."""
    return typing.get_origin(hint) is not None or hint in (int, float, str, bool, types.NoneType)
