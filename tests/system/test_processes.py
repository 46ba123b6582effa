"""Commands in processes of their own."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from small_runs import run_python
from warm_processes import SECONDS, is_running

from n2n_lightning.system.processes import ONE_SLOT, Command, Slots, run_commands

SHARE = Slots(("a", "b", "c"), lambda taken, asked: {"TAKEN": ",".join(taken)})


def shell(text: str, cwd: Path, slots: int = 1) -> Command:
    return Command(("sh", "-c", text), cwd, dict(os.environ), slots)


def run(commands: Sequence[Command], slots: Slots = SHARE) -> dict[int, int]:
    codes: dict[int, int] = {}
    assert run_commands(commands, slots, lambda number, code: codes.update({number: code})) is None
    return codes


def test_a_killed_command_leaves_the_others_alone(tmp_path: Path):
    texts = ("kill -9 $$", "exit 3", "touch here")
    assert run([shell(text, tmp_path) for text in texts]) == {0: -9, 1: 3, 2: 0}
    assert (tmp_path / "here").exists()


def test_commands_share_the_slots_and_wait_for_as_many_as_they_need(tmp_path: Path):
    text = 'echo "$TAKEN" > {}; mkdir lock-$TAKEN && sleep 0.2 && rmdir lock-$TAKEN'
    needs = (2, 2, 1, 9)
    codes = run([shell(text.format(number), tmp_path, slots) for number, slots in enumerate(needs)])
    assert set(codes.values()) == {0}
    taken = [(tmp_path / str(number)).read_text().strip().split(",") for number in range(4)]
    assert [len(names) for names in taken] == [2, 2, 1, 3]  # one that needs more than there are takes all
    assert all(len(set(names)) == len(names) for names in taken)


def test_what_a_killed_command_has_started_is_killed_too(tmp_path: Path):
    run([shell("sleep 1000 & echo $! > pid; kill -9 $$", tmp_path)], ONE_SLOT)
    ends = time.monotonic() + SECONDS
    while is_running(int((tmp_path / "pid").read_text())):
        assert time.monotonic() < ends
        time.sleep(0.05)


def test_a_signal_reaches_the_commands_and_starts_no_other(tmp_path: Path):
    traps = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(5)); "
    waits = f"{traps} open('ready', 'w').close(); time.sleep(1000)"
    code = f"""
import os, pathlib, signal, sys, threading, time
from n2n_lightning.system.processes import ONE_SLOT, Command, run_commands

def kill_when_ready():
    while not os.path.exists("ready"):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=kill_when_ready).start()
commands = [Command((sys.executable, "-c", {waits!r}), pathlib.Path.cwd(), dict(os.environ))] * 2
print(run_commands(commands, ONE_SLOT, lambda number, code: print(number, code)))
"""
    ended = run_python(["-c", code], tmp_path)
    assert ended.stdout.split() == ["0", "5", str(int(signal.SIGTERM))], ended.stderr


def test_a_job_hears_signals_that_its_parent_blocks(tmp_path: Path):
    code = """
import signal
from n2n_lightning.system.processes import obey_parent
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
obey_parent()
print(signal.pthread_sigmask(signal.SIG_BLOCK, []))
"""
    ended = run_python(["-c", code], tmp_path)
    assert ended.stdout.strip() == "set()", ended.stderr
