"""What all commands have in common: ``--version``, a quiet end behind ``| head``, and how threads wait."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

import pytest
from small_runs import ROOT, SECONDS

import n2n_lightning

COMMANDS = (
    "train",
    "evaluate",
    "denoise",
    "predict",
    "doctor",
    "export",
    "report",
    "repeat",
    "reproduce",
    "standin",
    "completion",
)


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    return subprocess.run(
        [sys.executable, *words], env=kept | environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )


def run_unread(words: Sequence[str], *, buffered: bool) -> tuple[int, str]:
    """Run a program whose standard output nobody reads; return the exit code and standard error."""
    environment = os.environ | {"PYTHONUNBUFFERED": "" if buffered else "1"}
    read, write = os.pipe()
    os.close(read)
    try:
        ended = subprocess.run(
            [sys.executable, *words],
            env=environment,
            stdout=write,
            stderr=subprocess.PIPE,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    finally:
        os.close(write)
    return ended.returncode, ended.stderr


def test_the_list_of_commands_is_complete():
    modules = (ROOT / "n2n_lightning").glob("*.py")
    assert {path.stem for path in modules if "def main(" in path.read_text()} == {*COMMANDS, "__main__"}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_tells_its_version(name: str):
    ended = run("-m", f"n2n_lightning.{name}", "--version")
    assert (ended.returncode, ended.stdout) == (0, f"n2n_lightning {n2n_lightning.__version__}\n"), ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_help_that_nobody_reads_ends_quietly(name: str):
    assert run_unread(["-m", f"n2n_lightning.{name}", "--help"], buffered=True) == (1, "")


LONG_OUTPUT = """
import sys
from n2n_lightning.system.errors import run_command

def main():
    for _ in range(20000):
        print("a line of a long output")

sys.exit(run_command(main))
"""


@pytest.mark.parametrize("buffered", [True, False])
def test_a_long_output_that_nobody_reads_ends_quietly(buffered: bool):
    assert run_unread(["-c", LONG_OUTPUT], buffered=buffered) == (1, "")


SHOW_SPINNING = """
import os, sys
from n2n_lightning.system.errors import run_command

run_command(lambda: print(os.environ.get("GOMP_SPINCOUNT")))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "environment", "expected"),
    [
        ("", {}, "3000"),
        ("", {"GOMP_SPINCOUNT": "7"}, "7"),
        ("", {"OMP_WAIT_POLICY": "ACTIVE"}, "None"),
        ("import torch", {}, "None"),  # which has read the environment already
    ],
)
def test_threads_that_wait_sleep_soon_unless_the_user_says_how(before: str, environment: dict[str, str], expected: str):
    ended = run("-c", before + SHOW_SPINNING, **environment)
    assert ended.stdout.strip() == expected, ended.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_imports_torch_before_the_threads_are_set(name: str):
    ended = run("-c", f"import sys, n2n_lightning.{name}; print('torch' in sys.modules)")
    assert ended.stdout.strip() == "False", ended.stderr
