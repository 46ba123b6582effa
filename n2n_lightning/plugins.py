"""Register nets, losses, noises, data sources, optimizers, schedulers and callbacks of your own; see docs/plugins.md.

Each function returns a decorator for a class or a function, which then is a choice like ours: ``model=my_net``. Its
arguments are the settings of the choice, with their defaults. They must be plain: numbers, text, true or false, lists.

Example:

    @plugins.net("my_net", optimizer="adamw")
    class MyNet(nn.Module): ...
"""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import pytorch_lightning as pl
import torch
from torch import nn

from n2n_lightning.data.choices import DATA, is_file_source
from n2n_lightning.data.scene_data import SceneData
from n2n_lightning.losses import GIVEN_ARGUMENTS, LOSSES, MINIMUM_AT, Statistic
from n2n_lightning.models.checkpoint import load_denoiser, save_denoiser
from n2n_lightning.models.families import FAMILIES
from n2n_lightning.models.module import OPTIMIZERS, SCHEDULERS
from n2n_lightning.models.net_family import family_of
from n2n_lightning.noise.choices import NOISES
from n2n_lightning.noise.kinds import Noise
from n2n_lightning.system import plugin_loading
from n2n_lightning.system.errors import InputError
from n2n_lightning.system.hydra_app import group_choices, store_choice
from n2n_lightning.training.build import build_module, compose_known, compose_model
from n2n_lightning.training.callback_choices import CALLBACKS, REFUSED
from n2n_lightning.training.check import model_faults, refuse
from n2n_lightning.training.settings import LOADER_KEYS, RunSettings

Any_ = TypeVar("Any_", bound=Callable[..., Any])
Callback = TypeVar("Callback", bound=type[pl.Callback])
Net = TypeVar("Net", bound=type[nn.Module])
NoiseClass = TypeVar("NoiseClass", bound=type[Noise])
Settings = Mapping[str, Any]
Brings = Sequence[str | Mapping[str, str]]  # entries of Hydra's defaults list

TECHNICAL = ("foreach", "maximize", "capturable", "differentiable", "fused")  # arguments of torch.optim, no choices
CHECKED_SIZES = ((1, 1), (1, 7), (3, 2), (31, 33), (40, 24))  # px, of the images in check_net


def net(name: str, *, optimizer: str | None = None) -> Callable[[Net], Net]:
    """Register a net: a class whose constructor takes ``channels`` and plain values with defaults.

    ``forward`` takes (N, C, H, W) float32 of any size and returns the same shape. ``stride`` is the number of pixels to
    whose multiple it pads (``nets.padding``), 1 if it does not.

    Args:
        name: the choice of ``model=``.
        optimizer: the choice of ``optimizer=`` that the model brings; None: that of the configuration.
    """

    def register(net_class: Net) -> Net:
        settings = plain_settings(net_class, given=("channels",))
        family = family_of(name, net_class)
        brings = [] if optimizer is None else [{"override /optimizer@_global_.optimizer": optimizer}]
        add("model", FAMILIES, name, net_class, {"family": name} | settings, brings)
        FAMILIES[name] = family  # made of the class that was registered
        return net_class

    return register


def loss(name: str, *, minimum_at: Statistic | None = None) -> Callable[[Any_], Any_]:
    """Register a loss: a function of ``estimate`` and ``target``, (N, C, H, W) float32 each, that returns a scalar.

    It may take ``progress``, the finished fraction of the training, and ``source``, the noisy images.

    Args:
        name: the choice of ``loss=``.
        minimum_at: the statistic of noisy targets that a net learns by it; ``train`` then warns of unsuitable noise.
    """

    def register(function: Any_) -> Any_:
        require_first(function, "estimate", "target")
        if minimum_at not in (None, *get_args(Statistic)):
            raise ValueError(f"minimum_at must be {', '.join(get_args(Statistic))} or None, got {minimum_at!r}")
        settings = plain_settings(function, given=("estimate", "target", *GIVEN_ARGUMENTS))
        add("loss", LOSSES, name, function, {"name": name} | settings)
        if minimum_at is not None:
            MINIMUM_AT[name] = minimum_at
        return function

    return register


def noise(name: str) -> Callable[[NoiseClass], NoiseClass]:
    """Register a noise: a subclass of ``noise.kinds.Noise`` with ``preserves`` and ``corrupt``, for clean images."""

    def register(noise_class: NoiseClass) -> NoiseClass:
        settings = plain_settings(noise_class)
        if not hasattr(noise_class, "preserves"):
            rule = f"{noise_class.__name__}.preserves must be the statistics that the noise leaves at the clean value"
            raise ValueError(f'{rule}; write preserves = frozenset({{"mean"}})')
        if noise_class.corrupt is Noise.corrupt:
            raise ValueError(f"{noise_class.__name__} has no corrupt; write def corrupt(self, images, rng)")
        add("noise", NOISES, name, noise_class, {"name": name} | settings)
        return noise_class

    return register


def data(name: str) -> Callable[[Any_], Any_]:
    """Register a data source, a class like ``data.pairs.PairData``. A ``SceneData`` gets the settings of image files.

    If its constructor takes ``noise``, it gets the settings of the group ``noise``.
    """

    def register(source: Any_) -> Any_:
        of_files = is_file_source(source)
        common = tuple(inspect.signature(SceneData).parameters) if of_files else ()
        settings = plain_settings(source, given=("noise", *common))
        if of_loader := sorted(set(settings) & set(LOADER_KEYS)):
            raise ValueError(f"data={name} must not take {of_loader[0]}, which the loader has; rename it")
        brings: list[str | dict[str, str]] = ["_files" if of_files else "_loader"]
        if "noise" in inspect.signature(source).parameters:
            brings.append({"override /noise@_global_.noise": "gaussian"})
        add("data", DATA, name, source, {"name": name} | settings, brings)
        return source

    return register


def optimizer(name: str, *, settings: Settings | None = None) -> Callable[[Any_], Any_]:
    """Register an optimizer, whose first argument is ``params``; ``settings`` replace the defaults of its arguments."""

    def register(function: Any_) -> Any_:
        require_first(function, "params")
        found = plain_settings(function, given=("params", *TECHNICAL)) | dict(settings or {})
        add("optimizer", OPTIMIZERS, name, function, {"name": name} | found)
        return function

    return register


def scheduler(name: str, *, settings: Settings | None = None) -> Callable[[Any_], Any_]:
    """Register a scheduler, whose first argument is ``optimizer``; ``settings`` replace the defaults.

    One that takes ``T_max``, the number of steps of the run, is stepped after every batch, others after every epoch.
    """

    def register(function: Any_) -> Any_:
        require_first(function, "optimizer")
        found = plain_settings(function, given=("optimizer", "T_max", "last_epoch", "verbose")) | dict(settings or {})
        add("scheduler", SCHEDULERS, name, function, {"name": name} | found)
        return function

    return register


def callback(name: str) -> Callable[[Callback], Callback]:
    """Register a callback for ``callbacks=[{name: NAME}]``: a subclass of ``pytorch_lightning.Callback``.

    What it keeps over a resumed run is in ``state_dict`` and ``load_state_dict``: tensors and plain types.
    """

    def register(callback_class: Callback) -> Callback:
        plain_settings(callback_class)
        plugin_loading.claim("callback", name, callback_class, {*CALLBACKS, *REFUSED})
        CALLBACKS[name] = callback_class
        return callback_class

    return register


def add(
    group: str, table: dict[str, Any], name: str, factory: Callable[..., Any], settings: Settings, brings: Brings = ()
) -> None:
    """Make ``group=name`` a choice with these settings, which brings choices of other groups."""
    plugin = plugin_loading.claim(group, name, factory, {*table, *group_choices(group)})
    table[name] = factory
    defaults = {"defaults": [*brings, "_self_"]} if brings else {}
    store_choice(group, name, defaults | dict(settings), provider=plugin)
    compose_known.cache_clear()  # a cell of a notebook may change a choice


def require_first(function: Callable[..., Any], *names: str) -> None:
    """Refuse a function whose first arguments have other names, because the checks know them by these."""
    found = list(inspect.signature(function).parameters)
    if found[: len(names)] != list(names):
        label = getattr(function, "__name__", function)
        raise ValueError(f"{label} must take {', '.join(names)} first, got ({', '.join(found)}); rename its arguments")


def plain_settings(function: Callable[..., Any], given: Sequence[str] = ()) -> dict[str, Any]:
    """Return the arguments that are settings, with their defaults, "???" for none: then the user must set it.

    Args:
        function: a function or class.
        given: arguments that our code passes.
    """
    if not hasattr(function, "__qualname__"):  # such as a functools.partial: nothing says where it is defined
        raise InputError(f"register a function or class, got {function!r}; write a function that calls it")
    found = {}
    for key, parameter in inspect.signature(function).parameters.items():
        if key not in given:
            value = "???" if parameter.default is parameter.empty else parameter.default
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) or not is_plain(value):
                label = getattr(function, "__name__", function)
                rule = f"the argument {parameter} of {label} must be a number, text, true or false, a list, or None"
                raise ValueError(f"{rule}, because files hold no more; take a name and look it up")
            found[key] = list(value) if isinstance(value, tuple) else value
    return found


def is_plain(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(is_plain, value))
    return value is None or type(value) in (bool, int, float, str)


def check_net(model: str, *overrides: str) -> None:
    """Check what training, tiles and export need of a net; for the tests of a plugin.

    Args:
        model: its name.
        overrides: settings, such as ``model.width=8``.

    Raises:
        ValueError: its settings are wrong, it does not keep a shape, writes into its input, gives other values in a
            batch than alone, does not use a weight, or gives other values after it was saved and loaded.
    """
    settings = RunSettings.unchecked(compose_model(model, *overrides))
    refuse(model_faults(settings))
    for channels in (1, 3):
        module = build_module(settings, channels)
        for height, width in CHECKED_SIZES:
            images = torch.rand(2, channels, height, width, generator=torch.Generator().manual_seed(0))
            before, shape = images.clone(), tuple(images.shape)
            estimate = module.train()(images)
            if estimate.shape != images.shape or not estimate.isfinite().all():
                found = f"finite values of {shape}, got {tuple(estimate.shape)}"
                raise ValueError(f"{model} must return {found}; pad and crop in forward (n2n_lightning.nets.padding)")
            if not torch.equal(images, before):
                raise ValueError(f"{model} must not write into its input of {shape}; clone it, or set inplace=False")
            together = module.eval()(images)
            if not torch.allclose(module(images[:1]), together[:1], atol=1e-5, rtol=1e-4):
                raise ValueError(f"{model} must give an image of {shape} the same alone and in a batch; see its norms")
        estimate.square().sum().backward()
        if idle := [key for key, weight in module.net.named_parameters() if weight.grad is None]:
            raise ValueError(f"{model} must use all its weights, got no gradient for {idle[0]}; remove it")
    with tempfile.TemporaryDirectory() as folder:
        save_denoiser(module, Path(folder) / "net.ckpt")
        loaded = load_denoiser(Path(folder) / "net.ckpt")
    if not torch.allclose(loaded(images), module(images), atol=1e-5, rtol=1e-4):
        raise ValueError(f"{model} must give the same after it was saved and loaded; keep tensors in register_buffer")
