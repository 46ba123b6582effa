"""CUDA graphs in imitation, on a CPU: what a stream that captures forbids is refused, and a replay calls no Python.

A capture notes every operator of the step with the tensors it takes and gives, forward and backward. A replay calls the
same operators again, and each writes into the same tensors as before.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from n2n_lightning.training.graph_step import Step

READS = {"_local_scalar_dense", "equal", "is_nonzero", "lift_fresh"}  # device to host; host to device, not pinned
UNKNOWN_SHAPE = {"nonzero", "masked_select", "unique_dim", "_unique2", "bincount", "repeat_interleave"}


def tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


class NotCapturable(Exception):
    """An operator that ends a capture."""


@dataclass
class Call:
    """An operator, and the tensors that it takes and gives."""

    function: OpOverload
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    given: list[Tensor]  # none by an operator that writes into what it takes

    def repeat(self) -> None:
        for place, value in zip(self.given, tensors(self.function(*self.args, **self.kwargs)), strict=False):
            place.copy_(value)


@dataclass
class Capture(TorchDispatchMode):
    """Notes the operators of a step, and in the end undoes what they have written: a capture computes nothing."""

    calls: list[Call] = field(default_factory=list)
    known: dict[int, Tensor] = field(default_factory=dict)  # by id; kept, so that no id comes again
    before: list[tuple[Tensor, Tensor]] = field(default_factory=list)  # tensors from outside, and their values then

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(
        self, function: OpOverload, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs, schema = kwargs or {}, function._schema
        name = schema.name.removeprefix("aten::")
        masks = any(isinstance(x, Tensor) and x.dtype in (torch.bool, torch.uint8) for x in tree_leaves(args[1:]))
        if name in READS | UNKNOWN_SHAPE or (name in ("index", "index_put", "index_put_") and masks):
            raise NotCapturable(name)
        if "generator" in kwargs or torch.Tag.nondeterministic_seeded in function.tags:
            raise NotCapturable(f"{name}: a draw within a graph needs a generator that the graph knows")
        written = any(x.alias_info is not None and x.alias_info.is_write for x in schema.arguments)
        self.before += [(x, x.clone()) for x in self.note(tensors((args, kwargs)))]
        result = function(*args, **kwargs)
        self.note(tensors(result))
        is_view = not written and any(x.alias_info is not None for x in schema.returns)
        if not is_view:  # a view has the memory of its base
            given = [] if written else tensors(result)
            self.calls.append(Call(function, args, kwargs, given))
        return result

    def note(self, found: list[Tensor]) -> list[Tensor]:
        """Return those that are new."""
        new = {id(x): x for x in found if id(x) not in self.known}
        self.known |= new
        return list(new.values())

    def undo(self) -> None:
        for place, value in self.before:
            place.copy_(value)


class ImitatedGraphs:
    """A ``graph_step.Recorder`` that captures in imitation. Counts captures, replays and steps without a graph."""

    def __init__(self) -> None:
        self.captures = self.replays = self.runs = 0
        self.outside: list[Tensor] = []  # what the last captured step takes that it does not make

    def run(self, step: Step) -> Tensor:
        self.runs += 1
        return step()

    def capture(self, step: Step) -> Step:
        self.captures += 1
        with Capture() as capture:
            loss = step()
        with torch.no_grad():
            capture.undo()
        self.outside = [tensor for tensor, _ in capture.before]

        @torch.no_grad()
        def replay() -> Tensor:
            self.replays += 1
            for call in capture.calls:
                call.repeat()
            return loss

        return replay
