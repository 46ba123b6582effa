"""Processes that start at once: each is a fork of a server that has imported PyTorch and has computed nothing."""

from __future__ import annotations

import gc
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path

SECONDS = 120  # timeout for a process that hangs; no test should come near
PRELOADED = [  # what takes longest to import, but no command: ``run_warm`` runs those as new modules
    *("n2n_lightning.training.run", "n2n_lightning.inference.file_runner", "n2n_lightning.inference.jobs"),
    *("hydra", "torch.utils.tensorboard"),
]
Trap = Callable[[], object]  # patches the new process before its command starts


def warm_context() -> ForkServerContext:
    """Return the context whose processes are forks of the server, which starts with the first of them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def run_warm(arguments: Sequence[str | Path], cwd: Path, trap: Trap | None = None) -> subprocess.CompletedProcess[str]:
    """Run ``python -m MODULE ARGUMENT...`` in a process of its own, without the seconds that imports take.

    It is not for parallel sweeps: joblib's processes do not start from a fork of the server.

    Args:
        arguments: ``-m``, the module and its arguments, as for ``small_runs.run_python``.
        cwd: folder to run it in.
        trap: a function at the top of a module, called in the new process first.
    """
    words = [str(argument) for argument in arguments]
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder, name) for name in ("out", "err")]
        process = warm_context().Process(target=become, args=(words, cwd, streams, trap))
        process.start()
        process.join(SECONDS)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(words, SECONDS)
        return subprocess.CompletedProcess(words, process.exitcode, *(path.read_text() for path in streams))


def become(words: list[str], cwd: Path, streams: list[Path], trap: Trap | None) -> None:
    """Run the module as ``python`` would, and write its output to the files of ``streams``."""
    for number, path in enumerate(streams, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    os.chdir(cwd)
    gc.freeze()  # see conftest.py
    os.environ["COLUMNS"] = "200"
    for name in ("HYDRA_FULL_ERROR", "N2N_FULL_ERROR"):
        os.environ.pop(name, None)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which processes in a shell's background ignore
    if trap is not None:
        trap()
    option, module, *rest = words
    assert option == "-m"
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def is_running(process: int) -> bool:
    """Return whether a process runs, and is no zombie that its parent has not asked for."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
