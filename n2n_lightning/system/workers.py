"""Call functions in worker processes that import only what the functions need.

Unlike ``multiprocessing`` this never imports the caller's main script a second time, so it also works in a script
without ``if __name__ == "__main__"``; and a worker ends by itself when its parent is killed.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

SERVE = "from n2n_lightning.system.workers import answer_calls; answer_calls()"


class WorkerDied(RuntimeError):
    """A worker process ended before it answered."""


@contextmanager
def worker_processes(count: int) -> Iterator[Callable[..., Any]]:
    """Start ``count`` workers, and end them with the block.

    Yields:
        A function for threads: ``call(function, *arguments)`` runs the function in the next idle worker, returns what
        it returns and raises what it raises. All must be picklable.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    workers: list[subprocess.Popen[bytes]] = []
    idle: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()

    def call(function: Callable[..., Any], *arguments: Any) -> Any:
        worker = idle.get()
        try:
            return ask(worker, function, *arguments)
        finally:
            idle.put(worker)

    try:
        for _ in range(count):
            command, pipe = [sys.executable, "-P", "-c", SERVE], subprocess.PIPE
            # in a session of its own, so that Ctrl-C reaches only the parent, which ends the workers
            worker = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment, start_new_session=True)
            workers.append(worker)
            idle.put(worker)
        yield call
    finally:
        for worker in workers:
            worker.kill()
        for worker in workers:
            worker.communicate()


def ask(worker: subprocess.Popen[bytes], function: Callable[..., Any], *arguments: Any) -> Any:
    """Call the function in this worker and wait for its answer."""
    assert worker.stdin is not None and worker.stdout is not None
    try:
        pickle.dump((function, arguments), worker.stdin)
        worker.stdin.flush()
        result, error = pickle.load(worker.stdout)
    except (EOFError, BrokenPipeError) as broken:
        end = worker.wait()
        reason = f"signal {-end}" if end < 0 else f"exit code {end}"
        raise WorkerDied(
            f"a worker process ended by {reason}; look for room in memory and on the disk, then start again"
        ) from broken
    if error is not None:
        raise error
    return result


def answer_calls() -> None:
    """Answer the calls of ``ask`` until standard input ends, which it does when the parent ends."""
    calls, answers = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # nothing else may come between the answers
    while True:
        try:
            function, arguments = pickle.load(calls)
        except EOFError:
            return
        result, fault = None, None
        try:
            result = function(*arguments)
        except Exception as error:  # the caller raises it
            fault = error
        try:
            pickle.dump((result, fault), answers)
            answers.flush()
        except BrokenPipeError:  # the parent was killed
            os._exit(1)
