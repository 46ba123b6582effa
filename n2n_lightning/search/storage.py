"""Optuna's study of a search: where it is stored, its sampler and its pruner."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from sqlalchemy.exc import SQLAlchemyError

from n2n_lightning.system.errors import InputError, one_line, suggest

FILE = "search.db"  # in the study's folder
LOCKED_SECONDS = 10  # wait so long for another process that writes to an SQLite file
SAMPLERS = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}
PRUNERS = {
    "median": optuna.pruners.MedianPruner,
    "percentile": optuna.pruners.PercentilePruner,
    "halving": optuna.pruners.SuccessiveHalvingPruner,
    "hyperband": optuna.pruners.HyperbandPruner,
}
DEFAULTS: dict[str, dict[str, Any]] = {  # after one epoch, halving ended good runs (docs/scale.md)
    "halving": {"min_resource": 2},
    "percentile": {"percentile": 25.0},
}
Chosen = str | Mapping[str, Any] | None  # a name, or a name and arguments


def make_sampler(chosen: Chosen, seed: int) -> optuna.samplers.BaseSampler:
    """Return the sampler of ``hydra.sweeper.sampler``."""
    sampler: optuna.samplers.BaseSampler = make("sampler", SAMPLERS, chosen or "tpe", seed=seed)
    return sampler


def make_pruner(chosen: Chosen) -> optuna.pruners.BasePruner:
    """Return the pruner of ``hydra.sweeper.pruner``; None keeps all trials."""
    return optuna.pruners.NopPruner() if chosen is None else make("pruner", PRUNERS, chosen)


def make(setting: str, table: Mapping[str, Any], chosen: str | Mapping[str, Any], **given: Any) -> Any:
    """Build one of Optuna's objects; refuse a name or an argument that it does not have."""
    arguments = {"name": chosen} if isinstance(chosen, str) else dict(chosen)
    name = str(arguments.pop("name", None))
    where = f"hydra.sweeper.{setting}"
    if name not in table:
        raise InputError(f"{where} must be one of {', '.join(table)}, got {name!r}{suggest(name, table)}")
    known = [key for key in inspect.signature(table[name]).parameters if key not in given]
    for key in arguments:
        if key not in known:
            raise InputError(f"{where} {name} has no {key}{suggest(key, known)}; it has {', '.join(known)}")
    try:
        return table[name](**DEFAULTS.get(name, {}) | arguments | given)
    except (ValueError, TypeError) as error:
        raise InputError(f"{where} {name} cannot be used: {error}") from error


def storage_url(given: str | None, folder: Path) -> str:
    """Return the URL of a storage: that of ``search.db`` in the folder, or of the file that is given, or as given."""
    if given is not None and "://" in given:
        return given
    return f"sqlite:///{(folder / FILE if given is None else Path(given)).absolute()}"


def file_of(url: str) -> Path | None:
    """Return the SQLite file of a URL; None for another database."""
    return Path(url.removeprefix("sqlite:///")) if url.startswith("sqlite:///") else None


@contextmanager
def storage_faults(url: str) -> Iterator[None]:
    """Turn the errors of a database into one message: it is locked, damaged, or cannot be reached."""
    try:
        yield
    except (optuna.exceptions.StorageInternalError, SQLAlchemyError) as error:
        cause = error.__cause__ or error
        where = file_of(url) or url.rpartition("@")[2]
        if "locked" in str(cause):
            fix = "wait for the other process, or set hydra.sweeper.storage=FILE"
        else:
            fix = "move it away (finished runs are not trained again), or set hydra.sweeper.storage=FILE"
        raise InputError(f"the search's storage {where} cannot be used: {short_cause(cause)}; {fix}") from error


def short_cause(error: BaseException) -> str:
    """Return the database's own words, without SQLAlchemy's."""
    return one_line(getattr(error, "orig", None) or error)


def open_storage(url: str) -> optuna.storages.RDBStorage:
    """Open a database. Optuna makes its tables if they are missing."""
    waiting = {"connect_args": {"timeout": LOCKED_SECONDS}} if file_of(url) else {}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.storages.RDBStorage(url, engine_kwargs=waiting)
    except (ImportError, RuntimeError, ValueError) as error:  # no driver, another version's tables, no URL
        raise InputError(f"hydra.sweeper.storage cannot be used: {one_line(error)}; set a file, or null") from error


def load_search(url: str, name: str, pruner: Chosen = None) -> optuna.Study | None:
    """Return the study; None if there is no such study yet. An SQLite file that is missing is not made."""
    file = file_of(url)
    if file is not None and not file.exists():
        return None
    with storage_faults(url):
        try:
            return optuna.load_study(study_name=name, storage=open_storage(url), pruner=make_pruner(pruner))
        except KeyError:
            return None


def create_search(url: str, name: str, direction: str, about: Mapping[str, Any]) -> optuna.Study:
    """Make a study, unless a command that was killed has; ``about`` tells later commands what it is a search of."""
    with storage_faults(url):
        storage, towards = open_storage(url), optuna.study.StudyDirection[direction.upper()]
        study = optuna.create_study(study_name=name, storage=storage, direction=towards, load_if_exists=True)
        for key, value in about.items():
            study.set_user_attr(key, value)
        return study
