"""A job's end of a search: what it reports, in whichever process it runs."""

from __future__ import annotations

import json
import sqlite3
import warnings
from pathlib import Path
from typing import Any

import pytest

optuna = pytest.importorskip("optuna", reason="the extra search is not installed")

from n2n_lightning.search import storage
from n2n_lightning.search.storage import create_search, storage_url
from n2n_lightning.search.trial import SEARCH, TRIAL, search_pruning
from n2n_lightning.system.errors import InputError

VALUES = [20.0, 21.0, 22.0]  # of the trials that have ended, in dB, at every epoch


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make a study with three trials that have ended and one that runs; set the environment of the latter's job."""
    url = storage_url(None, tmp_path)
    found = create_search(url, "name", "maximize", {})
    for value in VALUES:
        ended = found.ask()
        for epoch in (1, 2):
            ended.report(value, epoch)
        found.tell(ended, value)
    pruner = {"name": "median", "n_startup_trials": 3}
    monkeypatch.setenv(SEARCH, json.dumps({"storage": url, "study": "name", "pruner": pruner}))
    monkeypatch.setenv(TRIAL, str(found.ask()._trial_id))
    return found


def test_a_job_that_is_no_trial_is_not_pruned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert search_pruning(tmp_path / "run") is None
    monkeypatch.setenv(TRIAL, "1")  # left by a job of another process: there is no search here
    assert search_pruning(tmp_path / "run") is None


def test_a_trial_reports_and_is_hopeless_below_the_median(study: Any, tmp_path: Path):
    pruning = search_pruning(tmp_path / "run")
    assert pruning is not None
    assert [pruning.is_hopeless(epoch, value) for epoch, value in ((1, 20.5), (2, 21.5))] == [True, False]
    again = search_pruning(tmp_path / "run")  # after an interruption, from the checkpoint of epoch 1
    assert again is not None
    with warnings.catch_warnings(action="error"):  # Optuna warns of a second report
        assert not again.is_hopeless(2, 21.5)
    trial = study.trials[-1]
    assert trial.intermediate_values == {1: 20.5, 2: 21.5} and trial.user_attrs["folder"] == "run"


def test_a_locked_storage_does_not_end_the_run(
    study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(storage, "LOCKED_SECONDS", 0.1)
    pruning = search_pruning(tmp_path / "run")
    assert pruning is not None
    with sqlite3.connect(tmp_path / storage.FILE) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert not pruning.is_hopeless(1, 0.0)
    assert "warning: " in (said := capsys.readouterr().err) and "locked" in said
    assert pruning.is_hopeless(1, 0.0)


def test_a_search_that_is_gone_is_told(study: Any, tmp_path: Path):
    (tmp_path / storage.FILE).unlink()
    with pytest.raises(InputError, match=r"no search 'name'"):
        search_pruning(tmp_path / "run")
