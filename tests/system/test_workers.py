"""Functions called in worker processes."""

from __future__ import annotations

import operator
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from small_runs import run_python
from warm_processes import SECONDS, is_running

from n2n_lightning.system.workers import WorkerDied, worker_processes


def test_threads_share_the_workers(tmp_path: Path):
    with worker_processes(2) as call, ThreadPoolExecutor(4) as threads:
        processes = set(threads.map(lambda _: call(os.getpid), range(20)))
        assert call(pow, 2, 10) == 1024
        assert 1 <= len(processes) <= 2 and os.getpid() not in processes
    for process in processes:
        assert not is_running(process)


def test_what_a_function_raises_is_raised_here_and_the_worker_goes_on():
    with worker_processes(1) as call:
        with pytest.raises(ZeroDivisionError):
            call(operator.truediv, 1, 0)
        assert call(operator.add, 1, 2) == 3


def test_what_a_function_prints_does_not_disturb_the_answers():
    with worker_processes(1) as call:
        assert call(print, "words") is None
        assert call(operator.add, 1, 2) == 3


def test_a_worker_that_dies_is_named_with_its_signal():
    with worker_processes(1) as call, pytest.raises(WorkerDied, match="ended by signal 9;"):
        call(os.kill, call(os.getpid), signal.SIGKILL)


def test_a_script_without_a_guard_runs_once(tmp_path: Path):
    """Unlike multiprocessing, which would import it again in every worker."""
    code = "import os\nfrom n2n_lightning.system.workers import worker_processes\n"
    code += "print('once')\nwith worker_processes(1) as call:\n    print(call(abs, -3))\n"
    (tmp_path / "script.py").write_text(code)
    assert run_python(["script.py"], tmp_path).stdout.split() == ["once", "3"]


def test_workers_end_when_their_parent_is_killed():
    code = "import os, time; from n2n_lightning.system.workers import worker_processes\n"
    code += "with worker_processes(1) as call:\n    print(call(os.getpid), flush=True); time.sleep(1000)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        parent.kill()
    ends = time.monotonic() + SECONDS
    while is_running(worker):
        assert time.monotonic() < ends
        time.sleep(0.02)
