"""Read thousands of damaged files with every reader, in a process that may crash or hang and is then replaced.

Each file is read as in training (``stack.open_stack``, ``read_photograph``, ``read_pkl``), as in ``predict`` from
reading to writing, or as a checkpoint.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

from warm_processes import warm_context

from stress.bombs import bombs
from stress.figures import Figure
from stress.mutations import mutated
from stress.originals import originals
from stress.worker import READ, REFUSED, read_files

FILES, QUICK_FILES = 2000, 150
LIMIT_S, LIMIT_MB = 10.0, 500.0
KILL_MB = 2500.0  # above the start; the process is killed before it harms the machine
START_S = 120.0


class Worker:
    """One process that reads files."""

    def __init__(self, scratch: Path, good: list[Path]) -> None:
        folder, log = scratch / "work", scratch / "worker.log"
        folder.mkdir(exist_ok=True)
        self.connection, other_end = warm_context().Pipe()
        self.process = warm_context().Process(target=read_files, args=(other_end, folder, good, log), daemon=True)
        self.process.start()
        other_end.close()
        self.start_mb = float("inf")
        started = self.answer(START_S)
        if "start_mb" not in started:
            raise RuntimeError(f"the process that reads files does not start ({started}); see {log}")
        self.start_mb = started["start_mb"]

    def ask(self, path: Path) -> dict[str, Any]:
        """Return what became of a file. ``ended`` says how the process ended, if it did."""
        with contextlib.suppress(BrokenPipeError):  # it has ended
            self.connection.send(path)
        return self.answer(LIMIT_S)

    def answer(self, limit_s: float) -> dict[str, Any]:
        deadline = time.monotonic() + limit_s
        while not self.connection.poll(0.02):
            if self.resident_mb() > self.start_mb + KILL_MB:
                return self.kill("memory")
            if time.monotonic() > deadline:
                return self.kill("hang")
        try:
            answer: dict[str, Any] = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            return {"ended": f"crash with code {self.process.exitcode}"}
        return answer

    def resident_mb(self) -> float:
        try:
            pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        except (OSError, IndexError):  # it has just ended
            return 0.0
        return int(pages) * os.sysconf("SC_PAGE_SIZE") / 2**20

    def kill(self, why: str) -> dict[str, Any]:
        self.process.kill()
        self.process.join()
        return {"ended": why}

    def close(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


def run(scratch: Path, *, quick: bool, seed: int = 0) -> list[Figure]:
    """Write bad files below ``scratch``, read them, and keep those that had a bad outcome."""
    folder = scratch / "inputs"
    folder.mkdir(parents=True, exist_ok=True)
    good, rng = originals(), Random(seed)
    whole = []
    for number, (name, content) in enumerate(good.items()):
        whole.append(folder / f"{number}-{name}")
        whole[-1].write_bytes(content)
    readings = Readings(scratch, whole)
    try:
        for path in whole:
            readings.read(path)
        for number, (name, content) in enumerate(bombs().items()):
            readings.read(folder / f"{number}-{name}", content)
        print(f"  {len(readings.answers)} good and hostile files read", flush=True)
        readings.damaged(list(good.items()), QUICK_FILES if quick else FILES, rng)
    finally:
        readings.worker.close()
    return figures(readings.answers, [path.name for path in whole])


class Readings:
    """What became of each file, by its name; a new process replaces each one that ended.

    Args:
        scratch: folder for everything.
        whole: good files, which a process reads before its memory is measured.
    """

    def __init__(self, scratch: Path, whole: list[Path]) -> None:
        self.scratch, self.whole, self.folder = scratch, whole, scratch / "inputs"
        self.answers: dict[str, dict[str, Any]] = {}
        self.worker = Worker(scratch, whole)

    def read(self, path: Path, content: bytes | None = None) -> None:
        """Write ``content``, if given, to ``path`` and read it; remove the file unless it had a bad outcome."""
        if content is not None:
            path.write_bytes(content)
        answer = self.answers[path.name] = self.worker.ask(path)
        if "ended" in answer:
            print(f"  {path.name}: {answer['ended']}", flush=True)
            self.worker.close()
            self.worker = Worker(self.scratch, self.whole)
        elif faults := faults_of(answer):
            print(f"  {path.name}: {'; '.join(faults)}", flush=True)
        elif content is not None:
            path.unlink()

    def damaged(self, good: list[tuple[str, bytes]], count: int, rng: Random) -> None:
        for number in range(count):
            name, content = good[number % len(good)]
            way, spoilt = mutated(content, Path(name).suffix, rng.choice(good)[1], rng)
            self.read(self.folder / f"{number}-{way}-{name}", spoilt)
            if (number + 1) % 250 == 0:
                print(f"  {number + 1} of {count} damaged files read", flush=True)


def faults_of(answer: dict[str, Any]) -> list[str]:
    """Return what was wrong with the outcome of a file that was read to the end."""
    found = [
        f"{outcome['reader']}: {outcome['how']} {outcome['message']}"
        for outcome in answer["outcomes"]
        if outcome["how"] not in (READ, REFUSED)
    ]
    return found + ([f"{answer['mb']:.0f} MB"] if answer["mb"] > LIMIT_MB else [])


def figures(answers: dict[str, dict[str, Any]], whole: list[str]) -> list[Figure]:
    ended = {name: answer["ended"] for name, answer in answers.items() if "ended" in answer}
    finished = {name: answer for name, answer in answers.items() if "ended" not in answer}
    outcomes = {name: answer["outcomes"] for name, answer in finished.items()}
    hows = Counter(outcome["how"] for each in outcomes.values() for outcome in each)
    bad = [name for name, each in outcomes.items() if any(o["how"] not in (READ, REFUSED) for o in each)]
    unread = [
        name
        for name in whole
        if any(o["how"] != READ and o["reader"] != "photograph" for o in outcomes.get(name, ()))  # it needs 8 bits
    ]
    most, slowest = (max(answer[key] for answer in finished.values()) for key in ("mb", "seconds"))
    crashes = [name for name, how in ended.items() if how.startswith("crash")]
    hangs = [name for name, how in ended.items() if how == "hang"]
    greedy = [name for name, how in ended.items() if how == "memory"]
    return [
        Figure(
            f"{len(answers) - len(whole)} damaged and hostile files of {len(whole)} kinds, read by every reader",
            "every reading ends with pixels or one message that names the file",
            f"{hows[READ]} readings gave pixels, {hows[REFUSED]} one message, {len(bad)} files else {bad[:3]}",
            not bad,
        ),
        Figure("the same files undamaged", "all are read", f"{len(unread)} are not {unread[:3]}", not unread),
        Figure("crashes of the reading process", "none", f"{len(crashes)} {crashes[:3]}", not crashes),
        Figure(
            "the slowest file",
            f"at most {LIMIT_S:.0f} s",
            f"{slowest:.1f} s, {len(hangs)} stopped for longer {hangs[:3]}",
            not hangs,
        ),
        Figure(
            "memory above the process's start",
            f"at most {LIMIT_MB:.0f} MB",
            f"{most:.0f} MB at most, {len(greedy)} stopped beyond {KILL_MB:.0f} MB {greedy[:3]}",
            most <= LIMIT_MB and not greedy,
        ),
    ]
