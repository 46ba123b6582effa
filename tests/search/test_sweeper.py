"""``hydra/sweeper=optuna`` from the command line: trials, pruning, and going on after an end of any kind."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from conftest import Command
from small_runs import read_json, stamps, tiny_overrides
from warm_processes import run_warm

pytest.importorskip("optuna", reason="the extra search is not installed")  # before modules that import it

from n2n_lightning.data.ee559 import Ee559Data
from n2n_lightning.search.storage import create_search, storage_url

RATE = "optimizer.lr=tag(log,interval(1e-4,1))"
PRUNER = "hydra.sweeper.pruner={name: median, n_startup_trials: 2}"
TRAIN = ("-m", "n2n_lightning.train")
SEARCH = ("-m", "hydra/sweeper=optuna", "model=convtrans_relu", "trainer.max_epochs=3", RATE, PRUNER)


def trials(folder: Path) -> list[dict[str, Any]]:
    """Return the trials of the search in the study ``runs``."""
    found: list[dict[str, Any]] = read_json(folder / "outputs/runs/search.json")["trials"]
    return found


@pytest.mark.slow
def test_a_search_prunes_and_stops_at_its_number_of_trials(command: Command, course_data: Path, tmp_path: Path):
    line = (*SEARCH, *tiny_overrides(course_data))
    ended = command(*line, "hydra.sweeper.n_trials=6")
    assert ended.code == 0 and "Traceback" not in ended.err
    found = trials(tmp_path)
    assert [trial["number"] for trial in found] == list(range(6))
    assert {trial["state"] for trial in found} == {"complete", "pruned"}
    for trial in found:
        result = read_json(tmp_path / "outputs/runs" / trial["folder"] / "result.json")
        assert result["status"] == {"complete": "done", "pruned": "pruned"}[trial["state"]]
        assert (
            result["epochs"] == trial["epochs"]
            and f"{result['optimizer']['lr']:.4g}" == trial["params"]["optimizer.lr"]
        )
        if trial["state"] == "complete":
            assert result["val/psnr"] == trial["value"]
    complete = [trial["value"] for trial in found if trial["state"] == "complete"]
    assert f"best val/psnr {max(complete):.2f} dB" in ended.out and "6 of 6 trials" in ended.out
    assert "N2N_SEARCH" not in os.environ

    before = stamps(tmp_path / "outputs" / "runs" / found[0]["folder"])
    assert command(*line, "hydra.sweeper.n_trials=6").code == 0
    assert trials(tmp_path) == found
    assert command(*line, "hydra.sweeper.n_trials=7").code == 0
    assert trials(tmp_path)[:6] == found and len(trials(tmp_path)) == 7
    assert stamps(tmp_path / "outputs" / "runs" / found[0]["folder"]) == before


def kill_in_the_second_trial() -> None:
    """Make the process kill itself where its second trial reads its data."""
    load, calls = Ee559Data.load, 0

    def killed(self: Ee559Data, stage: str) -> object:
        nonlocal calls
        calls += 1
        if calls == 6:  # twice to find the monitor, twice in each trial
            os.kill(os.getpid(), signal.SIGKILL)
        return load(self, stage)  # type: ignore[arg-type]  # a stage it is

    Ee559Data.load = killed  # type: ignore[method-assign, assignment]  # in a process of its own


@pytest.mark.slow
def test_a_search_that_was_killed_finds_what_it_would_have_found(command: Command, course_data: Path, tmp_path: Path):
    line = (*SEARCH, *tiny_overrides(course_data), "trainer.max_epochs=2", "hydra.sweeper.n_trials=4")
    assert command(*line).code == 0
    whole = trials(tmp_path)
    (tmp_path / "outputs").rename(tmp_path / "whole")
    assert run_warm([*TRAIN, *line], tmp_path, kill_in_the_second_trial).returncode == -signal.SIGKILL
    assert [trial["state"] for trial in trials(tmp_path)] == ["complete"]
    assert command(*line).code == 0
    assert trials(tmp_path) == whole


@pytest.mark.slow
def test_a_signal_ends_the_search_and_leaves_its_trial_unfinished(
    command: Command, course_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    load = Ee559Data.load

    def signalled(self: Ee559Data, stage: str) -> object:
        if "N2N_TRIAL" in os.environ:
            os.kill(os.getpid(), signal.SIGTERM)
        return load(self, stage)  # type: ignore[arg-type]  # a stage it is

    monkeypatch.setattr(Ee559Data, "load", signalled)
    ended = command(*SEARCH, *tiny_overrides(course_data))
    assert ended.code == 143 and [trial["state"] for trial in trials(tmp_path)] == ["interrupted"]


@pytest.mark.slow
def test_a_failed_trial_is_no_value_and_the_search_goes_on(command: Command, course_data: Path, tmp_path: Path):
    words = ("optimizer.lr=choice(0.1,1e30)", "data.batch_size=choice(8,0)", "hydra.sweeper.n_trials=8")
    ended = command(*SEARCH[:-2], *tiny_overrides(course_data), *words, "hydra.sweeper.pruner=null")
    assert ended.code == 1
    states = {tuple(trial["params"].values()): (trial["state"], trial["value"]) for trial in trials(tmp_path)}
    for (rate, batch), (state, value) in states.items():
        good = (rate, batch) == ("0.1", "8")
        assert (state == "complete") is good and (value is not None) is good
    assert {state for state, _ in states.values()} == {"complete", "failed"}


@pytest.mark.slow
def test_trials_with_the_same_settings_are_trained_once(command: Command, course_data: Path, tmp_path: Path):
    words = ("optimizer.lr=choice(0.1)", "trainer.max_epochs=1", "hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=3")
    folder = tmp_path / "outputs/runs"
    folder.mkdir(parents=True)
    create_search(storage_url(None, folder), "runs", "maximize", {})  # and nothing noted: as after a kill
    ended = command(*SEARCH[:-2], *tiny_overrides(course_data), *words)
    assert ended.code == 0 and "1 done, 2 skipped" in ended.out
    assert len({trial["value"] for trial in trials(tmp_path)}) == 1 and len(trials(tmp_path)) == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("optimizer.lr=0.1",), "a setting with several values"),
        ((RATE, "hydra.sweeper.n_trials=0"), "hydra.sweeper.n_trials must be 1 or more, got 0"),
        ((RATE, "hydra.sweeper.direction=up"), "hydra.sweeper.direction must be maximize or minimize, got up"),
        ((RATE, "hydra.sweeper.sampler=tpee"), "did you mean 'tpe'"),
        ((RATE, "model=choice(unet,unett)"), "model must be one of"),
        (("optimizer.lrr=interval(0,1)",), "did you mean 'optimizer.lr'"),
        ((RATE, "data.root=nowhere"), "nowhere"),
        ((RATE, "hydra.sweeper.storage=nothing://x/y"), "nothing://x/y"),
    ],
)
def test_a_search_that_cannot_be_is_refused_before_anything_is_written(
    command: Command, course_data: Path, tmp_path: Path, words: tuple[str, ...], said: str
):
    ended = command("-m", "hydra/sweeper=optuna", *tiny_overrides(course_data), *words)
    assert ended.code == 2 and ended.err.count("error: ") == 1 and said in ended.err
    assert not list(tmp_path.iterdir())


def test_without_m_a_search_is_refused(command: Command, course_data: Path, tmp_path: Path):
    ended = command("hparams=study", *tiny_overrides(course_data))
    assert ended.code == 2 and "needs -m" in ended.err and not list(tmp_path.iterdir())


def test_without_optuna_the_extra_is_named(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    ended = command("-m", "hydra/sweeper=optuna", RATE)
    assert ended.code == 2 and "n2n_lightning[search]" in ended.err and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_ready_made_search_runs_and_another_space_is_refused(command: Command, course_data: Path, tmp_path: Path):
    line = ("-m", "hparams=study", "trainer.max_epochs=1", *tiny_overrides(course_data), "hydra.sweeper.n_trials=1")
    line = tuple(word for word in line if not word.startswith("data.batch_size"))
    assert command(*line).code == 0
    record = read_json(tmp_path / "outputs/hparams/search.json")
    assert record["trials"][0]["params"].keys() == {"model", "optimizer", "optimizer.lr", "data.batch_size"}
    ended = command(*line, "data.batch_size=8")
    assert ended.code == 2 and "a search of another space" in ended.err and "study=" in ended.err
