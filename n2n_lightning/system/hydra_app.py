"""Run a Hydra application with our exit codes, and explain Hydra's errors. Imports nothing heavy."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from n2n_lightning.system.errors import ASKED_FOR_TRACEBACKS, HYDRA_FULL_ERROR, InputError, run_command, suggest
from n2n_lightning.system.folders import config_folder, run_name

ONE_FILE_GROUPS = ("loss", "noise", "optimizer", "scheduler")  # conf/<group>.yaml; other groups: a file for each choice


def resolve_config(cfg: DictConfig) -> dict[str, Any]:
    """The resolved configuration in plain types.

    Raises:
        InputError: a value that has no default was not given.
    """
    try:
        config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[assignment]  # a dict it is
    except MissingMandatoryValue as error:
        key = error.full_key
        raise InputError(f"{key} is needed and not set; set {key}=...") from error
    return config


def run_hydra(main: Callable[[], None], config_name: str) -> int:
    """Run a ``hydra.main`` function and turn every way to end into an exit code and at most one message."""
    asked = os.environ.get(HYDRA_FULL_ERROR, "0")
    os.environ |= {ASKED_FOR_TRACEBACKS: asked, HYDRA_FULL_ERROR: "1"}  # else Hydra exits by itself, with code 1

    def explained() -> None:
        try:
            main()
        except (HydraException, OmegaConfBaseException) as error:
            raise InputError(explain(error, config_name)) from error

    try:
        return run_command(explained)
    finally:
        os.environ[HYDRA_FULL_ERROR] = asked


def store_choices(group: str) -> None:
    """Give Hydra the choices of a group that is one file: key ``l1`` of ``conf/loss.yaml`` becomes ``loss=l1``."""
    for name, settings in OmegaConf.load(config_folder() / f"{group}.yaml").items():
        ConfigStore.instance().store(str(name), settings, group, provider=f"{group}.yaml")


# at import, since a worker of hydra/launcher=joblib asks for it before it calls anything of ours
OmegaConf.register_new_resolver("run_name", run_name, replace=True)
for one_file in ONE_FILE_GROUPS:
    store_choices(one_file)


def explain(error: BaseException, config_name: str) -> str:
    """Hydra's chain of causes as one message, with the nearest key or option there is."""
    lines: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        lines += [line.strip() for line in str(cause).splitlines() if line.strip()]
        cause = cause.__cause__
    text = "\n".join(dict.fromkeys(lines))
    match = re.search(r"Could not find '([\w@./]+)/([\w.-]+)'", text)
    if match:
        group, name = match.groups()
        options = group_choices(group)
        return f"{group} must be one of {', '.join(options)}, got {name!r}" + suggest(name, options)
    match = re.search(r"Could not override '([\w@./]+)'", text)
    if match:
        keys = known_keys(config_name)
        hint = "; --help lists them, + before a key adds one"
        if {"-m", "--multirun"} & set(sys.argv):
            hint += f", and where a sweep chooses the group itself ++{match[1]}=... sets it"
        return f"{match[1]!r} is no setting" + suggest(match[1], keys) + hint
    return text


def group_choices(group: str) -> list[str]:
    """Return what ``group=`` accepts. A file whose name starts with _ is shared by others and is no choice."""
    if group in ONE_FILE_GROUPS:
        return sorted(map(str, OmegaConf.load(config_folder() / f"{group}.yaml")))
    return sorted(path.stem for path in (config_folder() / group).glob("[!_]*.yaml"))


def is_choice(group: str, name: str) -> bool:
    """Return whether a word of the command line, such as ``experiment=paper/text``, chooses from a group."""
    folder, _, stem = f"{group}/{name}".rpartition("/")
    return stem in group_choices(folder)


def known_keys(config_name: str) -> list[str]:
    """Every key of the configuration with the groups that the command line chose, dotted, and the groups."""
    GlobalHydra.instance().clear()
    chosen = [word for word in sys.argv[1:] if is_choice(*word.partition("=")[::2])]
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = OmegaConf.to_container(compose(config_name, chosen))
    keys: list[str] = []

    def walk(prefix: str, node: object) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                keys.append(f"{prefix}{key}")
                walk(f"{prefix}{key}.", value)

    walk("", config)
    return keys
