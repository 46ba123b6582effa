"""Tasks side by side: order, memory, cores, and what stops them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from n2n_lightning.inference.side_by_side import Reporter, StoppedError, Task, side_by_side

SECONDS = 30  # that a test waits at most


@pytest.fixture(autouse=True)
def cores() -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield 4
    torch.set_num_threads(before)


def finish_all(tasks: list[Task], working_bytes: float = 100) -> None:
    with side_by_side(tasks, working_bytes) as started:
        for progress in started:
            progress.finish()


def speaker(number: int, before: threading.Event, after: threading.Event) -> Callable[[Reporter], None]:
    """Return work that waits for an event, says two lines, and sets another event."""

    def work(reporter: Reporter) -> None:
        assert before.wait(SECONDS)
        reporter.say(f"{number} begins")
        reporter.say(f"{number} warns", is_warning=True)
        after.set()

    return work


def test_lines_are_in_the_order_of_the_tasks(capsys: pytest.CaptureFixture[str]):
    """The last of three works first."""
    ready = [threading.Event() for _ in range(4)]
    ready[3].set()
    finish_all([Task(1, speaker(number, ready[number + 1], ready[number])) for number in range(3)])
    out, err = capsys.readouterr()
    assert out.splitlines() == [f"{number} begins" for number in range(3)]
    assert err.splitlines() == [f"{number} warns" for number in range(3)]


def test_a_line_is_shown_before_its_task_ends(capsys: pytest.CaptureFixture[str]):
    shown = threading.Event()

    def work(reporter: Reporter) -> None:
        reporter.say("at work")
        assert shown.wait(SECONDS)

    def watch() -> None:
        deadline = time.monotonic() + SECONDS
        while "at work" not in capsys.readouterr().out and time.monotonic() < deadline:
            time.sleep(0.01)
        shown.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    finish_all([Task(1, work)])
    watcher.join()


@pytest.mark.parametrize(("needed", "most"), [([30] * 6, 3), ([60] * 4, 1), ([200, 10, 10, 200], 2), ([10] * 8, 4)])
def test_tasks_share_memory_and_cores_and_start_in_order(needed: list[int], most: int):
    """Of 100 bytes and 4 cores; a task that needs more than all runs alone."""
    running: list[int] = []
    seen: list[list[int]] = []
    lock = threading.Lock()

    def work(number: int) -> Callable[[Reporter], None]:
        def run(_: Reporter) -> None:
            with lock:
                running.append(number)
                seen.append(list(running))
            time.sleep(0.02)
            with lock:
                running.remove(number)

        return run

    finish_all([Task(size, work(number)) for number, size in enumerate(needed)])
    starts = [state[-1] for state in seen]
    assert most > 1 or starts == sorted(starts)
    assert max(map(len, seen)) <= most
    for state in seen:
        assert sum(needed[number] for number in state) <= 100 or len(state) == 1


def test_an_error_is_raised_where_its_task_is_awaited_and_leaves_the_others():
    done: list[int] = []

    def fail(_: Reporter) -> None:
        raise ValueError("bad file")

    with side_by_side([Task(1, fail), Task(1, lambda _: done.append(1))], 100) as (first, second):
        with pytest.raises(ValueError, match="bad file"):
            first.finish()
        second.finish()
    assert done == [1]


@pytest.mark.parametrize("place", ["check", "layer"])
def test_who_leaves_early_stops_those_that_run_and_those_that_wait(place: str):
    """Tasks 0 and 1 fill the memory, so 2 and 3 wait."""
    begun, ended = [threading.Event() for _ in range(2)], []

    def work(number: int) -> Callable[[Reporter], None]:
        def run(reporter: Reporter) -> None:
            begun[number].set()
            deadline = time.monotonic() + SECONDS
            try:
                while time.monotonic() < deadline:
                    if place == "check":
                        reporter.check()
                    else:
                        nn.Identity()(torch.zeros(1))
                    time.sleep(0.001)
            except StoppedError:
                ended.append(number)
                raise

        return run

    tasks = [Task(50, work(number)) for number in range(2)] + [Task(50, ended.append)] * 2  # type: ignore[arg-type]  # not called
    with pytest.raises(KeyboardInterrupt), side_by_side(tasks, 100):
        assert all(event.wait(SECONDS) for event in begun)
        raise KeyboardInterrupt
    assert sorted(ended) == [0, 1]


def test_nets_share_the_cores_and_others_get_them_back(cores: int):
    """Two of the tasks run at one time, then one."""
    found: dict[int, int] = {}
    both, first_is_done = threading.Barrier(2, timeout=SECONDS), threading.Event()

    def threads() -> int:
        nn.Identity()(torch.zeros(1))
        return torch.get_num_threads()

    def first(_: Reporter) -> None:
        both.wait()
        found[0] = threads()
        both.wait()

    def second(_: Reporter) -> None:
        both.wait()
        found[1] = threads()
        both.wait()
        assert first_is_done.wait(SECONDS)
        found[2] = threads()

    with side_by_side([Task(1, first), Task(1, second)], 100) as started:
        started[0].finish()
        started[0].future.result(SECONDS)
        first_is_done.set()
        started[1].finish()
    assert found == {0: cores // 2, 1: cores // 2, 2: cores}
    assert torch.get_num_threads() == cores
    nn.Identity()(torch.zeros(1))  # its hook is gone
    assert torch.get_num_threads() == cores
