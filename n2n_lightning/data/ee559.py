"""The course's files: a tuple of two uint8 tensors in a .pkl written by ``torch.save``."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

import torch
from torch import Tensor

from n2n_lightning.data.pairs import PairSource, Stage, TensorPairs
from n2n_lightning.system.atomic import atomic_write
from n2n_lightning.system.safe_load import is_stored, safe_load

FILES = {"train": "train_data.pkl", "val": "val_data.pkl"}
OFFICIAL_SHA256 = {
    "6a7915d6e2764b862409cf2bcb675b4ec7c4fa4435f1c18eba08441d270228aa": "official_train",
    "4ae7e2a4eb73a84878446e7bc0f4a55eb3f1e950de65ff838fef70ba73b96966": "official_val",
}


class Ee559Data:
    """``train_data.pkl`` (noisy, noisy) and ``val_data.pkl`` (noisy, clean) in one folder; ``data=ee559``.

    Args:
        root: the folder; a stage needs only its own file.
    """

    peak, sample_type = 255.0, "uint8"

    def __init__(self, *, root: str) -> None:
        self.root = Path(root)

    def load(self, stage: Stage) -> PairSource:
        """Read the pairs of ``stage``; raise ValueError if the file is missing, damaged, unsafe or of another form."""
        first, second = read_pkl(self.root / FILES[stage])
        return TensorPairs(first, None, second) if stage == "val" else TensorPairs(first, second)

    def fingerprint(self) -> str:
        """Return hashes of the files that exist; the course's own files have names instead."""
        if not any((self.root / name).exists() for name in FILES.values()):
            raise ValueError(f"{self.root} holds neither {' nor '.join(FILES.values())}; set data.root to their folder")
        sums = [file_sha256(path) for name in FILES.values() if (path := self.root / name).exists()]
        return "-".join(OFFICIAL_SHA256.get(digest, digest[:12]) for digest in sums)


def read_pkl(path: Path) -> tuple[Tensor, Tensor]:
    """Return the file's two (N, C, H, W) uint8 tensors; code in the pickle is refused and never run."""
    try:
        content = safe_load(path)
    except ValueError as error:
        raise ValueError(f"{error}; set data.root to a folder whose {path.name} holds two uint8 tensors") from error
    form = "two uint8 tensors (N, C, H, W) of one shape"
    if not (isinstance(content, (tuple, list)) and len(content) == 2 and all(isinstance(t, Tensor) for t in content)):
        raise ValueError(f"{path} must hold a tuple of {form}, got {type(content).__name__}")
    first, second = content
    if first.dtype != torch.uint8 or second.dtype != torch.uint8:
        raise ValueError(f"{path} must hold {form} with values 0..255, got {first.dtype} and {second.dtype}")
    if not (is_stored(first) and is_stored(second)):
        raise ValueError(f"{path} must hold {form}, got tensors that claim more numbers than it holds; write it again")
    if first.ndim != 4 or first.shape != second.shape or 0 in first.shape:
        raise ValueError(f"{path} must hold {form}, got {tuple(first.shape)} and {tuple(second.shape)}")
    return first, second


def write_pkl(path: Path, first: Tensor, second: Tensor) -> None:
    """Write two (N, C, H, W) uint8 tensors in the course's format."""
    assert first.dtype == second.dtype == torch.uint8
    with atomic_write(path) as file:  # by name: torch names the archive's content after its file
        torch.save((first.contiguous(), second.contiguous()), file.name)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of the file's bytes; a process reads a file once, as long as it is not changed."""
    stat = path.stat()
    return _file_sha256(path, stat.st_size, stat.st_mtime_ns)


@functools.cache
def _file_sha256(path: Path, size: int, mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
