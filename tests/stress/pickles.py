"""Read pickles, checkpoints and arrays that try to run code; each would create a file, the canary."""

from __future__ import annotations

import builtins
import io
import os
import pickle
import runpy
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from warm_processes import run_warm

from n2n_lightning.data.ee559 import FILES, read_pkl
from n2n_lightning.image_io.stack import open_stack
from n2n_lightning.models.checkpoint import load_denoiser, read_checkpoint
from n2n_lightning.system.folders import weights_folder
from stress.figures import Figure
from stress.originals import photos, saved

QUICK_COMMANDS = 2


class Trap:
    """Calls a function with arguments when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.function, self.arguments


class Hostile(NamedTuple):
    """A file that should be refused."""

    name: str
    content: bytes
    read: Callable[[Path], object]  # the framework's reader
    careless: Callable[[bytes], object] | None = None  # a careless reader, if there is one that runs the code


def careless(content: bytes) -> object:
    return torch.load(io.BytesIO(content), weights_only=False)


def careless_array(content: bytes) -> object:
    return np.load(io.BytesIO(content), allow_pickle=True)


def hostile_files(canary: Path) -> list[Hostile]:
    """Return one file of each kind; all of them would create ``canary``."""
    touch, script = f"touch '{canary}'", f"open({str(canary)!r}, 'w').close()"
    trap = Trap(os.system, touch)
    good = torch.load(weights_folder() / "five_models" / "convtrans_relu" / "best.ckpt", weights_only=True)
    about, state, arguments = (good[key] for key in ("n2n_lightning", "state_dict", "hyper_parameters"))
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    own = canary.with_name("own.py")
    own.write_text(script)
    old = io.BytesIO()
    torch.save(good | {"hparams_name": trap}, old, _use_new_zipfile_serialization=False)
    objects = io.BytesIO()
    np.save(objects, np.array([trap], object), allow_pickle=True)
    runs = {
        "system.ckpt": good | {"epoch": trap},
        "exec.ckpt": good | {"epoch": Trap(builtins.exec, script)},
        "eval.ckpt": good | {"epoch": Trap(builtins.eval, script)},
        "runpy.ckpt": good | {"epoch": Trap(runpy.run_path, str(own))},
        "hyper_parameters.ckpt": good | {"hyper_parameters": arguments | {"channels": trap}},
        "tensor.ckpt": good | {"state_dict": state | {next(iter(state)): trap}},
        "about.ckpt": good | {"n2n_lightning": about | {"family": trap}},
    }
    loss = {"name": "os.system", "command": touch}
    names = {  # names of code in place of plain values
        "family.ckpt": good | {"n2n_lightning": about | {"family": "os.system"}},
        "target.ckpt": good | {"hyper_parameters": arguments | {"_target_": "os.system", "_args_": [touch]}},
        "class_path.ckpt": good | {"hyper_parameters": arguments | {"class_path": "os.system", "init_args": [touch]}},
        "channels.ckpt": good | {"hyper_parameters": arguments | {"channels": 10**9}},
        "unstored.ckpt": good | {"state_dict": {name: t[..., :1].expand(10**6, *t.shape) for name, t in state.items()}},
    }
    return [
        *(Hostile(name, saved(content), load_denoiser, careless) for name, content in runs.items()),
        *(Hostile(name, saved(content), load_denoiser) for name, content in names.items()),
        Hostile("loss.ckpt", saved(good | {"hyper_parameters": arguments | {"loss": loss}}), read_loss),
        Hostile("legacy.ckpt", old.getvalue(), load_denoiser, careless),
        Hostile("tar.ckpt", as_tar(pickle.dumps(trap)), load_denoiser),
        Hostile("bare.ckpt", pickle.dumps(trap), read_checkpoint, pickle.loads),
        Hostile("torchscript.ckpt", as_torchscript(saved({"x": trap})), load_denoiser),
        Hostile("paths.ckpt", renamed(saved(good), f"../../{canary.name}"), load_denoiser),
        Hostile("packed.ckpt", renamed(saved(good), None, zipfile.ZIP_DEFLATED), load_denoiser),
        Hostile("bare.pkl", pickle.dumps((trap, trap)), read_pkl, pickle.loads),
        Hostile("course.pkl", saved((images, trap)), read_pkl, careless),
        Hostile("unstored.pkl", saved((images[:1].expand(10**6, 3, 8, 8),) * 2), read_pkl),
        Hostile("meta.pkl", saved((images.to("meta"),) * 2), read_pkl),
        Hostile(
            "objects.npy", objects.getvalue(), read_image, lambda content: np.load(io.BytesIO(content), None, True)
        ),
        Hostile("bare.npy", pickle.dumps(trap), read_image, pickle.loads),
    ]


def read_image(path: Path) -> object:
    return open_stack(path, path.parent / "cache")


def read_loss(path: Path) -> object:
    """Return the loss of a checkpoint, which its net needs not."""
    try:
        return load_denoiser(path).loss
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def as_tar(pickled: bytes) -> bytes:
    """Write the oldest format that ``torch.load`` knows."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in (("storages", pickled), ("tensors", pickled), ("pickle", pickled)):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def as_torchscript(content: bytes) -> bytes:
    """Turn the archive into one that ``torch.load`` takes for a TorchScript program."""
    file = io.BytesIO(content)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("archive/constants.pkl", pickle.dumps(()))
        archive.writestr("archive/code/__torch__.py", "import os\n")
    return file.getvalue()


def renamed(content: bytes, name: str | None, method: int = zipfile.ZIP_STORED) -> bytes:
    """Write the archive again, with another name for its first member."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w", method) as new:
        for number, member in enumerate(old.infolist()):
            new.writestr(name if name and not number else member.filename, old.read(member))
    return file.getvalue()


def run(scratch: Path, *, quick: bool, seed: int = 0) -> list[Figure]:
    """Read every kind with the function for it, and some with the commands."""
    folder, canary = scratch / "pickles", scratch / "pickles" / "canary"
    folder.mkdir(parents=True, exist_ok=True)
    files = hostile_files(canary)
    ran, harmless, odd = [], [], []
    for hostile in files:
        path = folder / hostile.name
        path.write_bytes(hostile.content)
        fault = refusal(hostile.read, path)
        odd += [f"{hostile.name}: {fault}"] if fault else []
        ran += [hostile.name] if canary.exists() else []
        canary.unlink(missing_ok=True)
        if hostile.careless is not None and not works(hostile.careless, hostile.content, canary):
            harmless.append(hostile.name)
    print(f"  {len(files)} hostile files read", flush=True)
    ended = [command(line, folder) for line in command_lines(folder)[: QUICK_COMMANDS if quick else None]]
    faults = [fault for fault in ended if fault]
    ran += ["a command"] if canary.exists() else []
    traps = sum(hostile.careless is not None for hostile in files)
    return [
        Figure(f"{len(files)} kinds of hostile pickles", "no code is run", f"{len(ran)} run {ran[:3]}", not ran),
        Figure(
            "the same, one message each",
            "a ValueError of one line that names the file",
            f"{len(files) - len(odd)} of {len(files)}{''.join(f'; {fault}' for fault in odd[:3])}",
            not odd,
        ),
        Figure(
            f"{traps} of them, read by a careless reader",
            "their code is run, so the test can fail",
            f"{traps - len(harmless)} run {harmless[:3]}",
            not harmless,
        ),
        Figure(
            f"{len(ended)} commands given hostile files",
            "exit code 2, one message, no traceback",
            f"{len(ended) - len(faults)} so{''.join(f'; {fault}' for fault in faults)}",
            not faults,
        ),
    ]


def refusal(read: Callable[[Path], object], path: Path) -> str | None:
    """Return what is wrong with how the file was refused, if anything is."""
    try:
        read(path)
    except ValueError as error:
        lines = str(error).splitlines()
        return None if len(lines) == 1 and str(path) in lines[0] else f"{lines}"
    except BaseException as error:
        return f"{type(error).__name__} {error}"
    return "was read"


def works(careless: Callable[[bytes], object], content: bytes, canary: Path) -> bool:
    """Return whether a careless reader runs the code of a hostile file."""
    try:
        careless(content)
    except Exception as error:  # after the code has run, the rest of the file may make no sense
        print(f"  the trap ended with {type(error).__name__}", flush=True)
    made = canary.exists()
    canary.unlink(missing_ok=True)
    return made


def command_lines(folder: Path) -> list[list[str]]:
    """Return the commands as a user types them after ``python -m n2n_lightning.``; each is given a hostile file."""
    (folder / "in").mkdir(exist_ok=True)
    (folder / "in" / "a.png").write_bytes(photos()["colour.png"])
    (folder / "course").mkdir(exist_ok=True)
    for name in FILES.values():
        (folder / "course" / name).write_bytes((folder / "course.pkl").read_bytes())
    start = ["train", "model=convtrans_relu", "trainer.accelerator=cpu", "hydra.run.dir=run"]
    return [
        ["predict", "hyper_parameters.ckpt", "in", "--output", "out"],
        [*start, "data=ee559", "data.root=course"],
        [*start, "data=ee559", "data.root=course", "init_from=system.ckpt"],
        ["evaluate", "checkpoint=tensor.ckpt", "data=ee559", "data.root=course"],
        ["predict", "convtrans_relu", "objects.npy", "--output", "out"],
    ]


def command(line: list[str], folder: Path) -> str | None:
    """Run a command, and return what is wrong with how it ended, if anything is."""
    print(f"  {' '.join(line)}", flush=True)
    ended = run_warm(["-m", f"n2n_lightning.{line[0]}", *line[1:]], folder)
    messages = [text for text in ended.stderr.splitlines() if text.startswith("error: ")]
    if ended.returncode == 2 and len(messages) == 1 and "Traceback" not in ended.stdout + ended.stderr:
        return None
    return f"{line[0]} ended with {ended.returncode}: {ended.stderr[-300:]}"
