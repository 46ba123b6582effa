"""Checkpoints: load one without Hydra, or strip one to weights and description."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from n2n_lightning.models.families import FAMILIES
from n2n_lightning.models.module import FORMAT, DenoiserModule, channels_last
from n2n_lightning.system.folders import weights_folder
from n2n_lightning.system.safe_load import MAX_REASON, is_stored, safe_load

KEPT = ("n2n_lightning", "hyper_parameters", "hparams_name", "epoch", "global_step", "pytorch-lightning_version")


def find_checkpoint(name: str | Path) -> Path:
    """A checkpoint by its path, by the folder of its run, or by its name under ``weights/``.

    Raises:
        ValueError: there is no such checkpoint; lists the names.
    """
    path, root = Path(name), weights_folder()
    for candidate in (path, path / "checkpoints" / "best.ckpt", path / "best.ckpt"):
        if candidate.is_file():
            return candidate
    known = {found.parent.relative_to(root).as_posix(): found for found in sorted(root.rglob("best.ckpt"))}
    matches = [key for key in known if str(name) in (key, key.rpartition("/")[2])]
    if len(matches) == 1:
        return known[matches[0]]
    if matches:
        rule = f"is more than one trained model: {', '.join(matches)}"
    else:
        rule = "holds no best.ckpt" if path.is_dir() else "does not exist"
    raise ValueError(f"{name} {rule}; give a checkpoint, the folder of a run, or one of {', '.join(known)}")


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The checkpoint's content: tensors and plain types only, checked to be this project's.

    Raises:
        ValueError: the file is missing, damaged, carries code, or is of another project or a newer format.
    """
    path = Path(path)
    content: dict[str, Any] = safe_load(path)
    about = content.get("n2n_lightning") if isinstance(content, dict) else None
    if not isinstance(about, dict) or not describes_itself(content, about):
        raise ValueError(f"{path} is not a checkpoint of n2n_lightning; give one that its training wrote")
    if about["format"] > FORMAT:
        raise ValueError(
            f"{path} has format {about['format']}, this version reads up to {FORMAT}; update n2n_lightning"
        )
    return content


def describes_itself(content: Mapping[Any, Any], about: Mapping[Any, Any]) -> bool:
    """Whether all is there that ``load_denoiser`` takes for granted."""
    family, number, peak = about.get("family"), about.get("format"), about.get("peak", 255.0)
    groups = (content.get("hyper_parameters"), content.get("state_dict"))
    return (
        isinstance(family, str)
        and family in FAMILIES
        and isinstance(number, int)
        and isinstance(peak, (int, float))
        and 0 < peak < math.inf
        and isinstance(about.get("sample_type", "uint8"), str)
        and all(isinstance(group, dict) and all(isinstance(key, str) for key in group) for group in groups)
    )


def load_denoiser(path: str | Path) -> DenoiserModule:
    """The trained denoiser of a checkpoint, in evaluation mode on the CPU; see ``DenoiserModule.denoise``.

    Args:
        path: see ``find_checkpoint``.

    Raises:
        ValueError: as ``find_checkpoint`` and ``read_checkpoint``, or the weights do not fit the described net.
    """
    path = find_checkpoint(path)
    content = read_checkpoint(path)
    about, arguments = content["n2n_lightning"], content["hyper_parameters"]
    weights = {name.removeprefix("net."): t for name, t in content["state_dict"].items() if name.startswith("net.")}
    try:
        check_description(arguments, weights)
        with torch.device("meta"):  # where the sizes that a file claims take no memory
            FAMILIES[about["family"]](**arguments).net.load_state_dict(weights, assign=True)
        module = FAMILIES[about["family"]](**arguments)
        module.net.load_state_dict(weights)
    except Exception as error:  # what a file says of itself can be wrong in any way
        reason = " ".join(str(error).split())[:MAX_REASON]
        raise ValueError(f"{path} holds weights that do not fit its own description ({reason})") from error
    module.peak, module.sample_type = float(about.get("peak", 255.0)), about.get("sample_type", "uint8")
    return channels_last(module).eval()


def check_description(arguments: Mapping[str, Any], weights: Mapping[str, Any]) -> None:
    """See that a net is described no larger than its weights are, before it is built layer by layer."""
    if not all(isinstance(weight, Tensor) and is_stored(weight) for weight in weights.values()):
        raise ValueError("weights that are no tensors, or claim more numbers than the file holds")
    most = max([len(weights), *(side for weight in weights.values() for side in weight.shape)])
    for name, value in arguments.items():
        if name not in ("optimizer", "loss", "scheduler") and max(numbers(value), default=0) > most:
            raise ValueError(f"{name} is {value}, the weights have at most {most} of anything")


def numbers(value: object) -> Iterator[float]:
    """Those in an argument of a family's: a number, or a list of them."""
    if isinstance(value, (int, float)):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from numbers(item)


def strip_checkpoint(path: str | Path, output: str | Path) -> None:
    """Write only what ``load_denoiser`` needs: weights and description, without optimizer and training state."""
    content = read_checkpoint(path)
    weights = {name: t.contiguous().clone() for name, t in content["state_dict"].items() if name.startswith("net.")}
    torch.save({key: content[key] for key in KEPT if key in content} | {"state_dict": weights}, output)
