"""Locks between processes: refused, waited for, freed when the holder is killed, skipped in read-only folders."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from warm_processes import SECONDS

from n2n_lightning.system.errors import InputError
from n2n_lightning.system.lock import exclusive_build, file_lock
from n2n_lightning.train import LOCK

HOLDER = """
import os, sys, time
from pathlib import Path
from n2n_lightning.system.lock import exclusive_build, file_lock

with file_lock(Path(sys.argv[1]), ""):
    child = os.fork()
    if child:
        print(child, flush=True)
    time.sleep(60)
"""


def test_a_killed_process_frees_its_lock_though_its_child_lives(tmp_path: Path):
    lock = tmp_path / "folder" / LOCK
    with subprocess.Popen([sys.executable, "-c", HOLDER, lock], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        try:
            with pytest.raises(InputError, match="busy"), file_lock(lock, "busy"):
                pass
            process.kill()
            process.wait(SECONDS)
            os.kill(child, 0)  # it lives
            with file_lock(lock, "busy"):
                assert lock.exists()
        finally:
            os.kill(child, signal.SIGKILL)
    assert not lock.exists()


WAITER = """
import sys
from pathlib import Path
from n2n_lightning.system.lock import exclusive_build

with exclusive_build(Path(sys.argv[1])):
    print(Path(sys.argv[1]).exists())
"""


@pytest.mark.slow
def test_a_second_process_waits_until_the_file_is_built(tmp_path: Path):
    made = tmp_path / "made"
    with exclusive_build(made):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen([sys.executable, "-c", WAITER, made], text=True, **pipes)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2)
        made.touch()
    out, err = process.communicate(timeout=SECONDS)
    assert out == "True\n" and err.startswith("waiting for another process") and err.count("\n") == 1


def test_nothing_is_locked_where_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with file_lock(tmp_path / LOCK, ""):
        assert not (tmp_path / LOCK).exists()
