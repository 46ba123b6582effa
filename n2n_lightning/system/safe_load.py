"""Load files of ``torch.save`` without running code that they may carry."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch

from n2n_lightning.system.folders import suggest_path

MAX_REASON = 300  # characters of torch's message
PLAIN_TYPES = (type(None), bool, int, float, complex, str, bytes, torch.Tensor, torch.nn.Parameter)


def safe_load(path: Path) -> Any:
    """Return the tensors and plain types in a file, on the CPU.

    Raises:
        ValueError: the file is missing or damaged, or it carries code. The code is not run.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist{suggest_path(path)}")
    try:
        if zipfile.is_zipfile(path):
            check_archive(path)
        with warnings.catch_warnings(action="ignore"):  # about other formats, which get our own message
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        rule = "holds more than tensors and plain types, or is damaged, and was not loaded"
        raise ValueError(f"{path} {rule}") from error
    except Exception as error:  # a damaged archive can fail in any way inside torch.load
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:MAX_REASON]
        raise ValueError(f"{path} is damaged or of another kind ({reason})") from error


def check_archive(path: Path) -> None:
    """Refuse a ZIP archive that would grow in memory, or whose checksums are wrong: torch does not check them."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        packed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
        if packed or sum(member.file_size for member in members) > path.stat().st_size:
            raise ValueError("it holds packed data, which torch.save does not write")
        if damaged := archive.testzip():
            raise ValueError(f"the checksum of {damaged} is wrong")


def is_stored(tensor: torch.Tensor) -> bool:
    """Return whether the file holds every value of a tensor. Strides of 0 or missing storage can fake a large shape."""
    plain = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
    return plain and tensor.nbytes <= tensor.untyped_storage().nbytes()


def unsafe_part(content: Any, where: str = "") -> str | None:
    """Return the place and the type of the first value that ``safe_load`` would refuse; None if there is none."""
    kind = type(content)
    if kind in (dict, OrderedDict):
        parts = [(f"{where}[{key!r}]", part) for key, value in content.items() for part in (key, value)]
    elif kind in (list, tuple, set):
        parts = [(f"{where}[{number}]", part) for number, part in enumerate(content)]
    else:
        return None if kind in PLAIN_TYPES else f"{where or 'it'} is {kind.__module__}.{kind.__qualname__}"
    return next(filter(None, (unsafe_part(part, place) for place, part in parts)), None)
