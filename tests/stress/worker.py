"""Read damaged files in a process of their own: what became of each in every reader, the memory, and the seconds."""

from __future__ import annotations

import os
import shutil
import time
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.measuring import forget_peak, resident_mb
from n2n_lightning.data.ee559 import read_pkl
from n2n_lightning.data.photo_crops import read_photograph
from n2n_lightning.image_io.stack import open_stack
from n2n_lightning.inference.denoiser import Denoiser
from n2n_lightning.inference.file_runner import FileDenoiser
from n2n_lightning.inference.jobs import FileJob
from n2n_lightning.inference.manifest import Manifest
from n2n_lightning.models.checkpoint import load_denoiser
from n2n_lightning.models.families import SequentialDenoiser

WORKING_BYTES = 2e8  # budget of predict; other memory of the process does not count
READ, REFUSED = "read", "refused"


class Same(torch.nn.Module):
    """A net that returns its input, so that only reading and writing take time."""

    stride = 1

    def forward(self, images: Tensor) -> Tensor:
        return images


class Readers:
    """Every way to read a file into the framework, one file at a time.

    Args:
        folder: folder for written files.
        reference: any file; stands for the checkpoint that a manifest belongs to.
    """

    def __init__(self, folder: Path, reference: Path) -> None:
        self.cache, self.output, self.reference = folder / "cache", folder / "denoised", reference
        module = SequentialDenoiser(optimizer={"name": "adam"}, loss={"name": "l2"}, channels=1)
        module.net = Same()
        self.denoiser = Denoiser(module, per_channel=True, working_bytes=WORKING_BYTES)

    def of(self, path: Path) -> list[Callable[[Path], str]]:
        match path.suffix:
            case ".pkl":
                return [self.course]
            case ".ckpt":
                return [self.checkpoint]
            case ".npy":
                return [self.train, self.predict]
        return [self.train, self.predict, self.photograph]

    def train(self, path: Path) -> str:
        """Read as ``data=pairs`` and similar data do; return the error message, if there is one."""
        stack = open_stack(path, self.cache)
        for number in range(min(stack.shape[0], 4)):
            stack.read(number, 0, 0, *stack.shape[1:3])
        return ""

    def predict(self, path: Path) -> str:
        """Read, denoise and write, as TIFF if the number in the name is a multiple of 4; return the error message."""
        self.output.mkdir(exist_ok=True)
        form = None if int(path.stem.partition("-")[0]) % 4 else "tiff"
        runner = FileDenoiser(self.denoiser, Manifest(self.output, self.reference, {}), form)
        faults = list(runner.run([FileJob(path, self.output / f"{path.stem}{'.tif' if form else path.suffix}")]))
        left = [part.name for part in self.output.iterdir() if part.name.endswith(".part")]
        assert not left, f"left behind: {left}"
        return "; ".join(faults)

    def photograph(self, path: Path) -> str:
        """Read as ``data=photos`` does, but accept small images."""
        try:
            read_photograph(path)
        except ValueError as error:
            if "photographs need" not in str(error):
                raise
        return ""

    def course(self, path: Path) -> str:
        """Read as ``data=ee559`` does."""
        read_pkl(path)
        return ""

    def checkpoint(self, path: Path) -> str:
        """Read as ``init_from``, ``evaluate`` and ``predict`` do."""
        load_denoiser(path)
        return ""


def outcome(reader: Callable[[Path], str], path: Path) -> dict[str, str]:
    """Return how a reader ended. Commands turn only ValueError and OSError into plain messages."""
    try:
        message = reader(path)
    except (ValueError, OSError) as error:
        message = str(error)
        if str(path) not in message:
            return {"reader": reader.__name__, "how": "unnamed", "message": message}
    except BaseException as error:
        return {"reader": reader.__name__, "how": type(error).__name__, "message": str(error)[:300]}
    how = "traceback" if "Traceback" in message else "lines" if len(message.splitlines()) > 1 else REFUSED
    return {"reader": reader.__name__, "how": how if message else READ, "message": message[:300]}


def answer(readers: Readers, path: Path, start_mb: float) -> dict[str, Any]:
    forget_peak()
    begin = time.perf_counter()
    outcomes = [outcome(reader, path) for reader in readers.of(path)]
    seconds = time.perf_counter() - begin
    more_mb = resident_mb("VmHWM") - start_mb
    for folder in (readers.cache, readers.output):
        shutil.rmtree(folder, ignore_errors=True)
    return {"outcomes": outcomes, "mb": more_mb, "seconds": seconds}


def read_files(connection: Connection, folder: Path, good: list[Path], log: Path) -> None:
    """Send the memory at the start, then receive paths and answer each; let errors of this process go to ``log``."""
    for path, stream in ((Path(os.devnull), 1), (log, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    readers = Readers(folder, Path(__file__))
    for path in good:  # so that libraries have loaded all they need before memory is measured
        answer(readers, path, 0.0)
    start_mb = resident_mb("VmRSS")
    connection.send({"start_mb": start_mb})
    while True:
        connection.send(answer(readers, connection.recv(), start_mb))
