"""Load a checkpoint without Hydra, or strip one to weights and description."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from n2n_lightning.models.families import FAMILIES
from n2n_lightning.models.module import FORMAT, MODULE_ARGUMENTS, DenoiserModule, to_channels_last
from n2n_lightning.models.trained import find_trained
from n2n_lightning.system import plugin_loading
from n2n_lightning.system.atomic import atomic_write
from n2n_lightning.system.errors import suggest
from n2n_lightning.system.folders import suggest_path
from n2n_lightning.system.safe_load import MAX_REASON, is_stored, safe_load

MAX_NAME = 80  # characters of a name out of a file, in a message
KEPT_KEYS = ["n2n_lightning", "hyper_parameters", "hparams_name", "epoch", "global_step", "pytorch-lightning_version"]


def find_checkpoint(name: str | Path) -> Path:
    """Find a checkpoint by its path, by the folder of its run, or by its name under ``weights/``.

    Raises:
        ValueError: there is no such checkpoint. The message lists the names.
    """
    path = Path(name)
    for candidate in (path, path / "checkpoints" / "best.ckpt", path / "best.ckpt"):
        if candidate.is_file():
            return candidate
    known = find_trained()
    matches = [key for key in known if str(name) in (key, key.rpartition("/")[2])]
    if len(matches) == 1:
        return known[matches[0]]
    last = [key.rpartition("/")[2] for key in known]
    near = suggest(str(name), [*known, *(key for key in last if last.count(key) == 1)], 0.7) or suggest_path(path)
    rule = "holds no best.ckpt" if path.is_dir() else f"does not exist{near}"
    if matches:
        rule = f"is more than one trained model: {', '.join(matches)}"
    raise ValueError(
        f"{name} {rule}; give a checkpoint, the folder of a run, or one of {', '.join(known)} "
        "(python -m n2n_lightning.predict --list tells what they are for)"
    )


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Load the content of a checkpoint, which holds only tensors and plain types.

    Raises:
        ValueError: the file is missing, damaged, carries code, or is of another project or a newer format.
    """
    path = Path(path)
    content: dict[str, Any] = safe_load(path)
    about = content.get("n2n_lightning") if isinstance(content, dict) else None
    if not isinstance(about, dict) or not has_description(content, about):
        raise ValueError(f"{path} is not a checkpoint of n2n_lightning; give one that its training wrote")
    if about["format"] > FORMAT:
        found = about["format"]
        raise ValueError(f"{path} has format {found}, this version reads up to {FORMAT}; update n2n_lightning")
    if about["family"] not in FAMILIES:
        plugin_loading.load()
    if about["family"] not in FAMILIES:
        raise ValueError(f"{path} holds a net of {unknown_family(about)}")
    return content


def unknown_family(about: Mapping[str, Any]) -> str:
    """Name a family that no module has registered, and say how its plugin is named."""
    family = f"the family {about['family'][:MAX_NAME]!r}, which n2n_lightning does not have"
    plugin = recorded_plugins(about).get("model=" + about["family"])
    return f"{family}; {plugin_loading.how_to_name(plugin)}"


def recorded_plugins(about: Mapping[str, Any]) -> dict[str, str]:
    """Return the plugins that a checkpoint names, if the names are short and of modules: ``loss=my_loss`` -> module."""
    found = about.get("plugins")
    items = found.items() if isinstance(found, dict) else ()
    return {key: value for key, value in items if plugin_loading.is_module_name(value) and len(value) <= MAX_NAME}


def has_description(content: Mapping[Any, Any], about: Mapping[Any, Any]) -> bool:
    """Return whether the content has every entry that ``load_denoiser`` needs, with the right type."""
    family, number, peak = about.get("family"), about.get("format"), about.get("peak", 255.0)
    groups = (content.get("hyper_parameters"), content.get("state_dict"))
    return (
        isinstance(family, str)
        and isinstance(number, int)
        and isinstance(peak, (int, float))
        and 0 < peak < math.inf
        and isinstance(about.get("sample_type", "uint8"), str)
        and all(are_limits(about[name]) for name in ("span", "reach") if name in about)
        and all(isinstance(group, dict) and all(isinstance(key, str) for key in group) for group in groups)
    )


def are_limits(values: object) -> bool:
    """Return whether this is a list of two finite numbers, the least and the greatest."""
    if not isinstance(values, list) or len(values) != 2:
        return False
    finite = all(isinstance(value, (int, float)) and math.isfinite(value) for value in values)
    return finite and values[0] <= values[1]


def load_denoiser(path: str | Path) -> DenoiserModule:
    """Load a trained denoiser, in evaluation mode on the CPU; see ``DenoiserModule.denoise``.

    Args:
        path: a checkpoint, the folder of a run, or a name under ``weights/``.

    Raises:
        ValueError: there is no such checkpoint, it is damaged, or its weights do not fit the net that it describes.
    """
    path = find_checkpoint(path)
    content = read_checkpoint(path)
    about, arguments = content["n2n_lightning"], content["hyper_parameters"]
    weights = {name.removeprefix("net."): t for name, t in content["state_dict"].items() if name.startswith("net.")}
    is_ours = plugin_loading.plugin_of("model", about["family"]) is None
    try:
        check_description(arguments if is_ours else {}, weights)
        if is_ours:  # a plugin's net may compute with tensors' values, which need memory
            with torch.device("meta"):  # whatever sizes the file claims, they take no memory there
                FAMILIES[about["family"]](**arguments).net.load_state_dict(weights, assign=True)
        module = FAMILIES[about["family"]](**arguments)
        module.net.load_state_dict(weights)
    except Exception as error:  # a wrong description can fail in any way
        reason = " ".join(str(error).split())[:MAX_REASON]
        raise ValueError(f"{path} holds weights that do not fit its own description ({reason})") from error
    module.peak, module.sample_type = float(about.get("peak", 255.0)), about.get("sample_type", "uint8")
    module.recorded_plugins = recorded_plugins(about)
    module.span, module.reach = (pair(about.get(name)) for name in ("span", "reach"))
    return to_channels_last(module).eval()


def pair(limits: list[float] | None) -> tuple[float, float] | None:
    """Return limits that have passed ``are_limits`` as a tuple; None if the checkpoint has none."""
    return None if limits is None else (float(limits[0]), float(limits[1]))


def check_description(arguments: Mapping[str, Any], weights: Mapping[str, Any]) -> None:
    """Refuse a description of a larger net than the weights are of, since building that net would take memory.

    Only of our own families: an argument of a plugin's net may be any number.
    """
    if not all(isinstance(weight, Tensor) and is_stored(weight) for weight in weights.values()):
        raise ValueError("weights that are no tensors, or claim more numbers than the file holds")
    most = max([len(weights), *(side for weight in weights.values() for side in weight.shape)])
    for name, value in arguments.items():
        if name not in MODULE_ARGUMENTS and max(numbers(value), default=0) > most:
            raise ValueError(f"{name} is {value}, but the weights have at most {most} layers, channels or pixels")


def numbers(value: object) -> Iterator[float]:
    """Yield the number, or the numbers of a list, in an argument of a family."""
    if isinstance(value, (int, float)):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from numbers(item)


def save_denoiser(module: DenoiserModule, path: str | Path, **about: str | bool) -> None:
    """Write a checkpoint that ``load_denoiser`` reads, atomically; ``about`` adds to its description."""
    weights = {f"net.{name}": t.detach().cpu().contiguous() for name, t in module.net.state_dict().items()}
    counts = {
        "pytorch-lightning_version": version("pytorch-lightning"),
        "hparams_name": "kwargs",
        "epoch": 0,
        "global_step": 0,
    }
    content: dict[str, Any] = {"state_dict": weights, "hyper_parameters": dict(module.hparams), **counts}
    module.on_save_checkpoint(content)
    content["n2n_lightning"] |= about
    with atomic_write(Path(path)) as file:
        torch.save(content, file)


def strip_checkpoint(path: str | Path, output: str | Path) -> None:
    """Write a copy with only what ``load_denoiser`` needs: weights and description."""
    content = read_checkpoint(path)
    weights = {name: t.contiguous().clone() for name, t in content["state_dict"].items() if name.startswith("net.")}
    torch.save({key: content[key] for key in KEPT_KEYS if key in content} | {"state_dict": weights}, output)
