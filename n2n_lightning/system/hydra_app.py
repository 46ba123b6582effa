"""Run a Hydra application with our exit codes, and explain Hydra's errors. Imports nothing heavy."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.default_element import ConfigDefault
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, OverrideParseException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from n2n_lightning.system import mistakes, plugin_loading
from n2n_lightning.system.arguments import version_text
from n2n_lightning.system.atomic import UNWRITABLE
from n2n_lightning.system.command_words import quote_paths, syntax_fault
from n2n_lightning.system.errors import HYDRA_FULL_ERROR, USER_FULL_ERROR, InputError, run_command
from n2n_lightning.system.folders import config_folder
from n2n_lightning.system.run_names import run_name

ONE_FILE_GROUPS = ("loss", "noise", "optimizer", "scheduler")  # conf/<group>.yaml; other groups: a file for each choice
OF_HYDRA = {"hydra/launcher": ("basic", "joblib"), "hydra/sweeper": ("basic",)}  # choices beside ours
CHOICE_FILES = "[!_]*.yaml"  # a file whose name starts with _ is shared by others and is no choice


def rate_of_family(usual: float, special: Mapping[str, float], *, _root_: DictConfig) -> float:
    """Return the learning rate that suits the nets of ``model.family``.

    Args:
        usual: the rate of most families.
        special: family -> its rate, if it needs another.
        _root_: the whole configuration, which OmegaConf passes.
    """
    return float(special.get(str(OmegaConf.select(_root_, "model.family")), usual))


# at import, because a worker of hydra/launcher=joblib needs them before it calls any function of ours
for resolver in (run_name, rate_of_family):
    OmegaConf.register_new_resolver(resolver.__name__, resolver, replace=True)


def resolve_config(cfg: DictConfig) -> dict[str, Any]:
    """Return the configuration with its references resolved, in plain types; refuse one with a value missing."""
    try:
        config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[assignment]  # of a DictConfig it is a dict
    except MissingMandatoryValue as error:
        raise InputError(f"{error.full_key} is needed and not set; set {error.full_key}=...") from error
    named = config.get("plugins")  # read again, because a file can name them too
    load_plugins(named if isinstance(named, list) else ())
    return config


def plain(value: Any) -> Any:
    """Return a value of a configuration in plain types."""
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def register_plugin(plugin: type[Any]) -> None:
    """Let Hydra find a launcher or sweeper as ``_target_: hydra_plugins.n2n_lightning.<its name>``.

    Hydra refuses plugins of a package with another name. There is no such package: other applications would load it.
    """
    Plugins.instance().class_name_to_class[f"hydra_plugins.n2n_lightning.{plugin.__name__}"] = plugin


class PluginFolders(SearchPathPlugin):
    """Add the folders ``conf`` of plugins to Hydra's search path, behind ours."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for plugin, folder in plugin_loading.config_folders().items():
            search_path.append(plugin, f"file://{folder}")


def load_plugins(named: Sequence[str] = ()) -> None:
    """Import plugins (see ``plugin_loading.load``), and let Hydra find the YAML files that they bring.

    Raises:
        InputError: a plugin cannot be used, or one of its files has the name of another choice.
    """
    plugin_loading.load(named)
    seen: dict[Path, str] = {}
    for plugin, folder in plugin_loading.config_folders().items():
        for path in (found.relative_to(folder) for found in folder.rglob("*.yaml")):
            group = path.parent.as_posix()
            ours = path.stem in own_choices(group) or has_file(path)
            other = "n2n_lightning" if ours else plugin_loading.plugin_of(group, path.stem) or seen.get(path)
            if other is not None:
                rule = f"conf/{path} of the plugin {plugin} has the name of a file or choice of {other}"
                raise InputError(f"{rule}; rename it")
            seen[path] = plugin
    if seen:
        Plugins.instance().register(PluginFolders)


def plugin_words(words: Sequence[str]) -> list[str]:
    """Return the modules in ``plugins=[...]`` of a command line: they are needed before Hydra composes it."""
    named = []
    for word in words:
        key, equals, value = word.lstrip("+").partition("=")
        if key == "plugins" and equals:
            match = re.fullmatch(r"\[([^][]*)\]", value.strip())
            if match is None:
                rule = f"plugins must be one list of modules in brackets, the same in a whole sweep, got {value!r}"
                raise InputError(f"{rule}; write 'plugins=[my_package.denoisers]'")
            named += plugin_loading.split_names(match[1])
    return named


def run_hydra(main: Callable[[], None], config_name: str) -> int:
    """Run a ``hydra.main`` function; turn its exceptions and signals into an exit code and at most one message."""
    os.environ.setdefault(USER_FULL_ERROR, os.environ.get(HYDRA_FULL_ERROR, "0"))  # a rank has that of rank 0
    os.environ[HYDRA_FULL_ERROR] = "1"  # otherwise Hydra catches the error, prints it and exits with code 1
    named_before = os.environ.get(plugin_loading.VARIABLE)

    def explained() -> None:
        if "--version" in sys.argv[1:]:  # Hydra would print its own
            print(version_text())
            return
        named = plugin_words(sys.argv[1:])
        if named:  # for the processes of a parallel sweep
            os.environ[plugin_loading.VARIABLE] = ",".join([*plugin_loading.split_names(named_before or ""), *named])
        load_plugins(named)
        sys.argv[1:] = prepare_words(sys.argv[1:], config_name)
        try:
            main()
        except (HydraException, OmegaConfBaseException) as error:
            raise InputError(explain(error, config_name)) from error
        except OSError as error:
            if error.errno not in UNWRITABLE:
                raise
            setting = "hydra.sweep.dir" if is_sweep() else "hydra.run.dir"
            reason = f"{error.filename} cannot be created ({error.strerror})"
            raise InputError(f"{reason}; set {setting}=FOLDER to one that can") from error

    try:
        return run_command(explained)
    finally:
        os.environ[HYDRA_FULL_ERROR] = os.environ.pop(USER_FULL_ERROR)
        os.environ.pop(plugin_loading.VARIABLE, None)
        if named_before is not None:
            os.environ[plugin_loading.VARIABLE] = named_before


def store_choices(group: str) -> None:
    """Give Hydra the choices of a group that is one file: key ``l1`` of ``conf/loss.yaml`` becomes ``loss=l1``."""
    for name, settings in OmegaConf.load(config_folder() / f"{group}.yaml").items():
        store_choice(group, str(name), settings, provider=f"{group}.yaml")


def store_choice(group: str, name: str, settings: Any, provider: str) -> None:
    """Give Hydra one choice: its settings, and as ``defaults`` the list of choices that it brings or is made of."""
    ConfigStore.instance().store(name, settings, group, provider=provider)


# at import, for the same reason as the resolver
for one_file in ONE_FILE_GROUPS:
    store_choices(one_file)


def explain(error: BaseException, config_name: str) -> str:
    """Return one message for an error of Hydra and its causes, with the setting, choice or line that is meant."""
    lines: dict[str, None] = {}  # each line once
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OverrideParseException):
            return syntax_fault(cause.override)
        lines |= dict.fromkeys(line.strip() for line in str(cause).splitlines() if line.strip())
        cause = cause.__cause__
    return mistakes.explain_text("\n".join(lines), sys.argv[1:], known_names(config_name), sweep=is_sweep())


def prepare_words(words: Sequence[str], config_name: str) -> list[str]:
    """Return the words of a command line as Hydra needs them: options first, paths quoted.

    Raises:
        InputError: a word is no setting and no option.
    """
    names = known_names(config_name)
    mistakes.check_options(words, names)
    settings: list[str] = get_args_parser().parse_known_intermixed_args(words)[0].overrides
    mistakes.check_words(settings, names)
    options = list(words)
    for setting in settings:
        options.remove(setting)
    options = ["--info=all" if word in ("--info", "-i") else word for word in options]  # else it takes the next word
    return [*options, *quote_paths(settings, sweep=is_sweep())]


def is_sweep() -> bool:
    """Return whether the command line asks for a sweep."""
    return bool({"-m", "--multirun"} & set(sys.argv))


def known_names(config_name: str) -> mistakes.Names:
    """Return the names that a command knows, to find those that a user means."""
    folders = sorted(path.name for path in config_folder().iterdir() if path.is_dir())
    groups = list(dict.fromkeys(("model", "optimizer", "loss", "data", "noise", "scheduler", *folders)))
    return mistakes.Names(
        groups,
        lambda group: [*group_choices(group), *nested_choices(group)],
        lambda: known_keys(config_name),
        lambda: settings_of_choices(groups),
        [option for action in get_args_parser()._actions for option in action.option_strings],
    )


def group_choices(group: str) -> list[str]:
    """Return what ``group=`` accepts: our choices, and those of the plugins that are loaded."""
    files = (
        path.stem for folder in plugin_loading.config_folders().values() for path in (folder / group).glob(CHOICE_FILES)
    )
    return sorted({*own_choices(group), *plugin_loading.registered(group), *files})


def own_choices(group: str) -> list[str]:
    """Return the choices of a group that this package has."""
    if group in ONE_FILE_GROUPS:
        return sorted(map(str, OmegaConf.load(config_folder() / f"{group}.yaml")))
    files = (path.stem for path in (config_folder() / group).glob(CHOICE_FILES))
    return sorted([*files, *OF_HYDRA.get(group, ())])


def has_file(path: Path) -> bool:
    """Return whether ``conf/`` has a file of this relative path."""
    return (config_folder() / path).exists()


def is_choice(group: str, name: str) -> bool:
    """Return whether a word of the command line, such as ``experiment=paper/text``, chooses from a group."""
    folder, _, stem = f"{group}/{name}".rpartition("/")
    return stem in group_choices(folder)


def nested_choices(group: str) -> list[str]:
    """Return the choices in folders of a group's folder, such as ``paper/text`` of ``experiment``."""
    folder = config_folder() / group
    names = (path.relative_to(folder).with_suffix("").as_posix() for path in folder.glob("*/**/*.yaml"))
    return sorted(name for name in names if "_" not in (part[0] for part in name.split("/")))


@contextmanager
def hydra_loader() -> Iterator[Any]:
    """Let Hydra read our configuration files while the block runs, outside of its application; yield its loader."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        yield GlobalHydra.instance().config_loader()


def compose_chosen(config_name: str, words: Sequence[str]) -> dict[str, Any]:
    """Compose a command's configuration with the choices that are among the words of a command line."""
    chosen = [word for word in words if is_choice(*word.partition("=")[::2])]
    config: dict[str, Any] = OmegaConf.to_container(compose(config_name, chosen))  # type: ignore[assignment]  # of a DictConfig it is a dict
    return config


def known_keys(config_name: str) -> list[str]:
    """Return the groups and the dotted keys of the configuration, given the groups that the command line chooses.

    Keys that only name a choice, such as ``loss.name``, are left out.
    """
    with hydra_loader():
        config = compose_chosen(config_name, sys.argv[1:])
    return [*config, *(key for key in flatten(config) if key.rpartition(".")[2] not in mistakes.KINDS)]


def settings_of_choices(groups: Sequence[str]) -> dict[str, list[str]]:
    """Return for each dotted setting of these groups the choices that have it, as ``GROUP=CHOICE``."""
    found: dict[str, list[str]] = {}
    with hydra_loader() as loader:
        for group in groups:
            for choice in group_choices(group):
                for key in settings_in(loader.repository, group, choice):
                    found.setdefault(f"{group}.{key}", []).append(f"{group}={choice}")
    return found


def settings_in(repository: Any, group: str, choice: str) -> set[str]:
    """Return the settings in a choice's file, and in those files of its group that it is made of."""
    loaded = repository.load_config(f"{group}/{choice}")
    if loaded is None or loaded.header.get("package") == "_global_":  # an experiment, which has settings of all groups
        return set()
    settings = set(map(str, loaded.config))
    for default in loaded.defaults_list or ():
        if isinstance(default, ConfigDefault) and not default.is_self():
            settings |= settings_in(repository, group, str(default.path))
    return settings


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a flat dict with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
