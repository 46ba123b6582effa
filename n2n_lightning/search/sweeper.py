"""The Hydra sweeper ``hydra/sweeper=optuna``: ask Optuna for settings, launch them as jobs, tell it how they ended."""

from __future__ import annotations

import importlib.util
import json
import math
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from n2n_lightning.search.trial import SEARCH, TRIAL
from n2n_lightning.system import errors
from n2n_lightning.system.hydra_app import plain, register_plugin, resolve_config
from n2n_lightning.system.lock import file_lock

if TYPE_CHECKING:
    import optuna

    from n2n_lightning.search.space import SearchSpace

LOCK = ".search.lock"  # in the study's folder, while a process searches there
PRUNED, INTERRUPTED = "pruned", "interrupted"  # what a job returns instead of its monitor's best value
DIRECTIONS = ("maximize", "minimize")


class OptunaSweeper(Sweeper):
    """Search with Optuna's ask and tell; ``conf/hydra/sweeper/optuna.yaml`` explains the settings.

    A trial is a job, so its run has a folder as any other, and a trial that was interrupted goes on from there.
    """

    hydra_context: HydraContext  # from ``setup`` on, and so are these:
    config: DictConfig
    launcher: Launcher

    def __init__(
        self,
        *,
        n_trials: int,
        n_jobs: int,
        direction: str | None,
        storage: str | None,
        study_name: str | None,
        seed: int,
        sampler: Any,
        pruner: Any,
        params: Any,
    ) -> None:
        self.n_trials, self.n_jobs, self.direction, self.seed = n_trials, n_jobs, direction, seed
        self.storage, self.study_name = storage, study_name
        self.sampler, self.pruner, self.params = map(plain, (sampler, pruner, params))
        self.started = 0  # jobs of this process

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what the launcher needs; refuse settings that cannot be."""
        if importlib.util.find_spec("optuna") is None:
            raise errors.InputError("hydra/sweeper=optuna needs Optuna; pip install 'n2n_lightning[search]'")
        for name, number in (("n_trials", self.n_trials), ("n_jobs", self.n_jobs)):
            if not isinstance(number, int) or number < 1:
                raise errors.InputError(f"hydra.sweeper.{name} must be 1 or more, got {number}")
        if self.direction not in (None, *DIRECTIONS):
            rule = f"hydra.sweeper.direction must be {' or '.join(DIRECTIONS)}, got {self.direction}"
            raise errors.InputError(f"{rule}; null follows the run's monitor")
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Search until the study has ``n_trials``; print what was found.

        Raises:
            errors.InputError: the space, the first trial's input or the storage cannot be used.
        """
        from n2n_lightning.search.record import search_line, write_record
        from n2n_lightning.search.space import read_space
        from n2n_lightning.search.storage import (
            create_search,
            load_search,
            make_pruner,
            make_sampler,
            storage_faults,
            storage_url,
        )

        words = [f"{key}={value}" for key, value in (self.params or {}).items()]
        space = read_space([*words, *arguments], self.hydra_context.config_loader)
        make_sampler(self.sampler, self.seed), make_pruner(self.pruner)
        folder = Path(self.config.hydra.sweep.dir)
        url, name = storage_url(self.storage, folder), self.study_name or folder.resolve().name
        study = load_search(url, name)
        if study is not None and is_described(study):
            check_same(study, space, folder)
        else:
            study, about = None, self.describe(space)  # before anything is written
        folder.mkdir(parents=True, exist_ok=True)
        busy = f"{folder} is being searched by another process; wait for it to end, or set another study=NAME"
        with file_lock(folder / LOCK, busy), storage_faults(url):
            study = study or create_search(url, name, **about)
            OmegaConf.save(self.config, folder / "multirun.yaml")
            os.environ[SEARCH] = json.dumps({"storage": url, "study": name, "pruner": self.pruner})  # for all processes
            try:
                self.run_trials(study, space)
            finally:
                del os.environ[SEARCH]
                with suppress(errors.InputError), storage_faults(url):
                    write_record(study, folder)
            print(search_line(study, self.n_trials), flush=True)

    def describe(self, space: SearchSpace) -> dict[str, Any]:
        """Return the direction of a new study and what it is of; refuse a space that cannot be composed or trained."""
        from n2n_lightning.training.run import find_monitor
        from n2n_lightning.training.trainer_settings import ONE_DEVICE

        samples = [space.overrides(params) for params in space.samples()]
        self.validate_batch_is_legal(samples)
        config = self.hydra_context.config_loader.load_sweep_config(self.config, samples[0])
        with open_dict(config):
            del config["hydra"]
        plain_config = resolve_config(config)
        # the trials may run on another machine
        plain_config["trainer"] |= ONE_DEVICE | {"accelerator": "cpu", "precision": "32-true"}
        monitor = find_monitor(plain_config)
        direction = self.direction or ("minimize" if "loss" in monitor else "maximize")
        return {"direction": direction, "about": {"monitor": monitor, **space.identity()}}

    def run_trials(self, study: optuna.Study, space: SearchSpace) -> None:
        """Go on with the trials that were interrupted, and ask for new ones, until ``n_trials`` have ended."""
        from n2n_lightning.search.record import write_record
        from n2n_lightning.search.storage import make_sampler

        while True:
            trials = study.get_trials(deepcopy=False)
            batch = [trial for trial in trials if trial.state.name == "RUNNING"][: self.n_jobs]
            missing = self.n_trials - count_ended(trials, space) - len(batch)
            for number in range(len(trials), len(trials) + min(missing, self.n_jobs - len(batch))):
                # a generator for each trial, so that a search that was interrupted draws what it would have drawn
                study.sampler = make_sampler(self.sampler, self.seed + number)
                asked = study.ask(space.distributions).number
                batch.append(study.get_trials(deepcopy=False)[asked])
            if not batch or not self.run_batch(study, space, batch):
                return
            write_record(study, Path(self.config.hydra.sweep.dir))

    def run_batch(self, study: optuna.Study, space: SearchSpace, batch: Sequence[optuna.trial.FrozenTrial]) -> bool:
        """Launch trials, tell the study how they ended, and return whether to go on; a signal leaves them unfinished.

        Of several trials with the same settings, which share a folder, only the first is launched.
        """
        launched: dict[tuple[str, ...], optuna.trial.FrozenTrial] = {}
        for trial in batch:
            try:
                words = space.overrides(trial.params)
                self.validate_batch_is_legal([words])
            except (HydraException, KeyError) as error:  # settings that do not go together; KeyError: killed when asked
                errors.report_error(error, f"trial {trial.number} cannot be composed: {errors.one_line(error)}")
                tell(study, trial, "refused")
            else:
                launched.setdefault(tuple(words), trial)
        lines = [[*words, f"++hydra.job.env_set.{TRIAL}={trial._trial_id}"] for words, trial in launched.items()]
        jobs = self.launcher.launch(lines, initial_job_idx=self.started) if lines else []
        self.started += len(lines)
        returned = [returned_value(job) for job in jobs]
        for trial, value in zip(launched.values(), returned, strict=True):
            tell(study, trial, value)
        return INTERRUPTED not in returned


def register_sweeper() -> None:
    """Let Hydra find the sweeper. It is in no package ``hydra_plugins``, where other applications would find it too."""
    register_plugin(OptunaSweeper)


def is_described(study: optuna.Study) -> bool:
    """Return whether a study has all that ``create_search`` notes in it; a kill may have come before."""
    return all(key in study.user_attrs for key in ("space", "fixed"))


def check_same(study: optuna.Study, space: SearchSpace, folder: Path) -> None:
    """Refuse to go on with a search of other settings: its trials could not be compared."""
    for key, now in space.identity().items():
        before = study.user_attrs.get(key)
        if before != now:
            rule = f"{folder} holds a search of another {key}: {before}, now {now}"
            raise errors.InputError(f"{rule}; set another study=NAME")


def count_ended(trials: Sequence[optuna.trial.FrozenTrial], space: SearchSpace) -> int:
    """Return the number of trials that have ended, without those that a kill ended before they had all settings."""
    return sum(trial.state.is_finished() and trial.params.keys() == space.keys.keys() for trial in trials)


def returned_value(job: JobReturn) -> object:
    """Return what a job returned, or the name of its error."""
    try:
        return job.return_value
    except Exception as error:
        return type(error).__name__


def tell(study: optuna.Study, trial: optuna.trial.FrozenTrial, returned: object) -> None:
    """Tell the study a value, or that the trial was pruned or failed, with the reason."""
    from optuna.trial import TrialState

    if isinstance(returned, (int, float)) and math.isfinite(returned):
        study.tell(trial.number, float(returned))
    elif returned == PRUNED:
        study.tell(trial.number, state=TrialState.PRUNED)
    elif returned != INTERRUPTED:
        study.tell(trial.number, state=TrialState.FAIL)
