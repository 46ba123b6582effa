"""Sweeps finish even if jobs fail, and a second process is refused in a run's folder."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from conftest import Command
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from small_runs import read_json, stamps, states, tiny_overrides

from n2n_lightning.data.ee559 import Ee559Data
from n2n_lightning.reporting.sweep import Outcome, append_outcome, outcome_lines, read_outcomes
from n2n_lightning.system.errors import one_line
from n2n_lightning.system.lock import file_lock
from n2n_lightning.train import LOCK

ONE_EPOCH = ("model=convtrans_relu", "trainer.max_epochs=1")


@pytest.mark.slow
def test_a_sweep_lists_every_job_and_repeats_only_the_failed_ones(command: Command, course_data: Path, tmp_path: Path):
    line = ["-m", *ONE_EPOCH, "optimizer.lr=1e30,0.1", *tiny_overrides(course_data), "data.batch_size=8,0"]
    ended = command(*line)
    assert ended.code == 1 and "Traceback" not in ended.out + ended.err
    found = states(ended.out)
    assert sorted(found.values()) == ["done", "failed", "refused", "refused"], ended.out
    assert "data.batch_size" in ended.out and "4 jobs of the sweep: " in ended.out and "2 refused" in ended.out
    (failed,) = re.findall(r"failed .* FloatingPointError: the training loss .*; (\S+) has the traceback", ended.out)
    assert "Traceback" in Path(failed).read_text()
    (done,) = (path.parent for path in tmp_path.glob("outputs/runs/*lr=0.1*/result.json"))
    assert re.search(rf"done +{re.escape(done.name)} +best val/psnr \d+\.\d\d dB", ended.out)
    before = stamps(done)

    again = command(*line)
    assert again.code == 1
    assert states(again.out) == found | {done.name: "skipped"}
    assert "done before, best val/psnr" in again.out and stamps(done) == before


@pytest.mark.slow
def test_a_failure_before_training_has_its_log_too(
    command: Command, course_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def broken(*_: object) -> None:
        raise RuntimeError("the reader broke\nin two lines")

    with monkeypatch.context() as patch:
        patch.setattr(Ee559Data, "load", broken)
        ended = command("-m", *ONE_EPOCH, "seed=0,1", *tiny_overrides(course_data))
    assert ended.code == 1 and list(states(ended.out).values()) == ["failed", "failed"]
    logs = re.findall(r"RuntimeError: the reader broke; in two lines; (\S+) has the traceback", ended.out)
    assert len(logs) == 2 and all("in two lines" in Path(log).read_text() for log in logs)


@pytest.mark.slow
def test_an_interrupted_sweep_lists_the_jobs_that_have_ended(
    command: Command, course_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    load, calls = Ee559Data.load, 0

    def signalled(self: Ee559Data, stage: str) -> object:
        nonlocal calls
        calls += 1
        if calls == 3:  # the second job reads its data
            os.kill(os.getpid(), signal.SIGTERM)
        return load(self, stage)  # type: ignore[arg-type]  # a stage it is

    monkeypatch.setattr(Ee559Data, "load", signalled)
    ended = command("-m", *ONE_EPOCH, "seed=0,1,2", *tiny_overrides(course_data))
    assert ended.code == 143 and list(states(ended.out).values()) == ["done", "interrupted"]


def test_a_single_run_has_no_table(command: Command, course_data: Path):
    assert "Jobs in" not in command(*ONE_EPOCH, *tiny_overrides(course_data)).out


def test_a_reason_is_one_short_line():
    assert one_line(ValueError("one\n  two\n\n")) == "one; two"
    assert len(one_line("x" * 1000)) < 320
    assert outcome_lines([]) == "0 jobs of the sweep: none ended"
    assert outcome_lines([Outcome(Path("a/b"), "done", 0, "best")]) == "done  b  best\n1 job of the sweep: 1 done"


def test_outcomes_of_all_processes_are_read_in_the_sweeps_order(tmp_path: Path):
    assert read_outcomes(tmp_path / "jobs") == {}
    jobs = {2: Outcome(Path("a/b,c"), "failed", 1, 'a "reason"\nof two lines'), 0: Outcome(Path("ä"), "done", 0, "")}
    for number, outcome in jobs.items():
        append_outcome(tmp_path / "jobs", number, outcome)
    assert list(read_outcomes(tmp_path / "jobs").items()) == [(0, jobs[0]), (2, jobs[2])]


# Two processes, one folder


@pytest.mark.slow
def test_a_second_process_is_refused_and_changes_nothing(command: Command, course_data: Path, tmp_path: Path):
    line = [*ONE_EPOCH, *tiny_overrides(course_data)]
    assert command(*line).code == 0
    (folder,) = (path.parent for path in tmp_path.glob("outputs/runs/*/result.json"))
    with file_lock(folder / LOCK, ""):
        before = stamps(folder)
        for more in ([], ["resume=false"]):
            ended = command(*line, *more)
            assert ended.code == 2 and ended.err.count("error: ") == 1 and "Traceback" not in ended.err
            assert f"{folder} is being trained in by another process" in ended.err and "study=" in ended.err
            assert stamps(folder) == before
    assert command(*line).out.count("already done, skipped") == 1
    assert not (folder / LOCK).exists()


@pytest.mark.slow
def test_in_a_sweep_the_refused_job_is_listed_and_the_others_train(command: Command, course_data: Path, tmp_path: Path):
    line = ["-m", *ONE_EPOCH, "seed=0,1", *tiny_overrides(course_data)]
    assert command(*line).code == 0
    first, second = sorted(path.parent for path in tmp_path.glob("outputs/runs/*/result.json"))
    (second / "result.json").unlink()
    with file_lock(first / LOCK, ""):
        ended = command(*line)
    assert ended.code == 2 and states(ended.out)[first.name] == "refused"
    assert read_json(second / "result.json")["status"] == states(ended.out)[second.name] != "interrupted"


def test_a_job_returns_its_monitors_best_value_and_one_that_failed_no_number(
    command: Command, course_data: Path, monkeypatch: pytest.MonkeyPatch
):
    returned: list[list[object]] = []
    basic: Any = next(kind for kind in Plugins.instance().discover(Launcher) if kind.__name__ == "BasicLauncher")
    original = basic.launch

    def launch(self: Any, *args: Any, **kwargs: Any) -> Any:
        jobs = original(self, *args, **kwargs)
        returned.append([job.return_value for job in jobs])
        return jobs

    monkeypatch.setattr(basic, "launch", launch)
    rates = "optimizer.lr=0.1,1e38,1e-30"
    line = ("-m", "model=convtrans_relu", "trainer.max_epochs=1", rates, "patience=1", "seed=0,-1")
    for _ in range(2):  # the second time, the finished jobs are skipped
        code, _, _ = command(*line, *tiny_overrides(course_data))
        assert code == 1
        (good, good_refused, bad, bad_refused, still, still_refused) = returned.pop()
        assert [bad, good_refused, bad_refused, still_refused] == ["failed", "refused", "refused", "refused"]
        results = map(read_json, Path("outputs").rglob("result.json"))
        assert {good, still} == {result["val/psnr"] for result in results if result["status"] != "failed"}
