"""The storage of a search, and its sampler and pruner by name."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

optuna = pytest.importorskip("optuna", reason="the extra search is not installed")  # before modules that import it

from n2n_lightning.search import storage
from n2n_lightning.search.storage import create_search, load_search, make_pruner, make_sampler, storage_url
from n2n_lightning.system.errors import InputError


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Make a storage with a study ``name``."""
    found = storage_url(None, tmp_path)
    create_search(found, "name", "maximize", {"monitor": "val/psnr"})
    return found


def test_a_study_is_found_again_and_nothing_is_made_by_looking(url: str, tmp_path: Path):
    study = load_search(url, "name")
    assert study is not None and study.direction.name == "MAXIMIZE" and study.user_attrs == {"monitor": "val/psnr"}
    assert load_search(url, "other") is None
    elsewhere = tmp_path / "none.db"
    assert load_search(storage_url(str(elsewhere), tmp_path), "name") is None and not elsewhere.exists()


def test_a_locked_storage_is_told_once(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(storage, "LOCKED_SECONDS", 0.1)
    with sqlite3.connect(tmp_path / storage.FILE) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(InputError, match=r"search\.db cannot be used: database is locked; wait"):
            load_search(url, "name")


@pytest.mark.parametrize("kept", [0, 20_000], ids=["no database", "damaged inside"])
def test_a_damaged_storage_is_told_once(url: str, tmp_path: Path, kept: int):
    path = tmp_path / storage.FILE
    path.write_bytes(path.read_bytes()[:kept] + os.urandom(20_000))
    with pytest.raises(InputError, match=r"search\.db cannot be used: .*; move it away"):
        load_search(url, "name")


@pytest.mark.parametrize("url", ["nothing://x/y", "sqlite:////no/such/folder/a.db", "no/such/folder/a.db"])
def test_a_storage_that_cannot_be_opened_is_told_once(url: str, tmp_path: Path):
    with pytest.raises(InputError, match=r"cannot be used"):
        create_search(storage_url(url, tmp_path), "name", "maximize", {})


def test_samplers_and_pruners_have_names_and_arguments():
    assert isinstance(make_sampler("random", 1), optuna.samplers.RandomSampler)
    pruner = make_pruner({"name": "percentile", "n_startup_trials": 3})
    assert isinstance(pruner, optuna.pruners.PercentilePruner) and pruner._n_startup_trials == 3
    assert isinstance(make_pruner(None), optuna.pruners.NopPruner)


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ("meridian", r"hydra\.sweeper\.pruner must be one of median, .*, got 'meridian'; did you mean 'median'"),
        ({"n_startup_trials": 3}, "got 'None'"),
        ({"name": "median", "startup_trials": 3}, "median has no startup_trials; did you mean 'n_startup_trials'"),
        ({"name": "median", "n_startup_trials": -3}, "median cannot be used: .*startup"),
    ],
)
def test_other_names_and_arguments_are_refused(chosen: object, said: str):
    with pytest.raises(InputError, match=said):
        make_pruner(chosen)  # type: ignore[arg-type]  # as a user may give it
