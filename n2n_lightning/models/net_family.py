"""Make the LightningModule for a net that is an ordinary ``nn.Module``."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import Any

from torch import nn

from n2n_lightning.models.module import MODULE_ARGUMENTS, DenoiserModule, Spec


def family_of(name: str, net_class: type[nn.Module]) -> type[DenoiserModule]:
    """Return the family ``name``, whose constructor takes the net's arguments beside those of every family.

    Checkpoints hold all arguments, also those that the user has left at their defaults.

    Args:
        name: of the family.
        net_class: its constructor takes ``channels`` and plain values; its objects have ``stride``.
    """
    parameters = inspect.signature(net_class).parameters
    taken = [key for key in (*MODULE_ARGUMENTS, "family") if key in parameters]
    if "channels" not in parameters or taken:
        rule = f"{net_class.__name__} must take channels, and no optimizer, loss, scheduler or family"
        raise ValueError(f"{rule}, got ({', '.join(parameters)}); rename its arguments")
    defaults = {key: p.default for key, p in parameters.items() if p.default is not p.empty}

    class NetDenoiser(DenoiserModule):
        family = name

        # **settings: the signature below names them, because each net has others
        def __init__(self, *, optimizer: Spec, loss: Spec, scheduler: Spec | None = None, **settings: Any) -> None:
            settings = {"channels": 3} | defaults | settings
            super().__init__(optimizer=optimizer, loss=loss, scheduler=scheduler)
            self.net = net_class(**settings)
            stride = getattr(self.net, "stride", None)
            if not isinstance(stride, int) or stride < 1:
                rule = f"{net_class.__name__}.stride must be the pixels to whose multiple the net pads"
                raise ValueError(f"{rule}, got {stride!r}; write stride = 1 if it needs no padding")

    own = inspect.signature(NetDenoiser).parameters
    keys = [own[key] for key in MODULE_ARGUMENTS]
    keys += [p.replace(kind=p.KEYWORD_ONLY) for p in parameters.values()]
    NetDenoiser.__signature__ = inspect.Signature(keys)  # type: ignore[attr-defined]  # inspect looks for it
    NetDenoiser.__init__.__annotations__ |= type_hints(net_class)
    NetDenoiser.__name__ = NetDenoiser.__qualname__ = f"{net_class.__name__}Denoiser"
    NetDenoiser.__doc__ = net_class.__doc__
    return NetDenoiser


def type_hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Return argument -> type; nothing if the types are named that exist only for a type checker."""
    try:
        return typing.get_type_hints(function.__init__ if inspect.isclass(function) else function)
    except NameError:
        return {}
