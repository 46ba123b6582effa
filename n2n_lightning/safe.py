"""Reading files written by ``torch.save`` without running anything that is in them."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch


def safe_load(path: Path) -> Any:
    """The tensors and plain types in a file, on the CPU.

    Raises:
        ValueError: the file is missing or damaged, or it carries code, which is not run.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist")
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:  # torch writes checksums, and does not look at them
                damaged = archive.testzip()
            if damaged:
                raise ValueError(f"the checksum of {damaged} is wrong")
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} holds more than tensors and plain types, or is damaged, and was not loaded"
        ) from error
    except Exception as error:  # a damaged archive can fail in any way inside torch.load
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path} is damaged or of another kind ({reason})") from error
