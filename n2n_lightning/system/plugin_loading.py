"""Import the modules that register nets, losses and the like from outside, and remember who registered what.

A plugin is named by the user (``plugins=[MODULE]``, the environment variable ``N2N_PLUGINS``, ``--plugins``), or is
installed with an entry point of the group ``n2n_lightning.plugins``. Nothing else is imported: a checkpoint or a record
that names a plugin is only text. ``n2n_lightning.plugins`` has the functions that a plugin calls.
"""

from __future__ import annotations

import functools
import importlib
import os
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from n2n_lightning.system.errors import InputError

VARIABLE = "N2N_PLUGINS"  # environment: modules, separated by commas
ENTRY_POINTS = "n2n_lightning.plugins"
PLUGIN_GROUPS = ("model", "loss", "noise", "data", "optimizer", "scheduler")


class Registration(NamedTuple):
    """Who registered a name, and the function or class behind it."""

    plugin: str
    factory: Callable[..., Any]


registrations: dict[tuple[str, str], Registration] = {}  # (group, name)
loaded: dict[str, ModuleType] = {}  # plugin -> its module
importing: list[str] = []  # the plugin that is being imported; empty if none is


def load(named: Sequence[str] = ()) -> None:
    """Import the plugins of ``named``, of the environment and of the entry points, each once.

    Raises:
        errors.InputError: some are missing, fail, or register a name that exists. The message names each of them.
    """
    installed = installed_plugins()
    faults = []
    for name in dict.fromkeys([*installed, *split_names(os.environ.get(VARIABLE, "")), *named]):
        if name not in loaded:
            try:
                loaded[name] = import_plugin(name, named=name not in installed)
            except InputError as error:
                faults.append(str(error))
    if faults:
        raise InputError("\n".join(faults))


@functools.cache  # it looks into every installed package
def installed_plugins() -> tuple[str, ...]:
    """Return the modules of all entry points of our group."""
    from importlib.metadata import entry_points  # takes 0.02 s, which commands without plugins need not spend

    return tuple(dict.fromkeys(point.module for point in entry_points(group=ENTRY_POINTS)))


def split_names(text: str) -> list[str]:
    """Split ``a.b, c`` into names of modules."""
    return [name.strip().strip("'\"") for name in text.split(",") if name.strip()]


def import_plugin(name: str, *, named: bool) -> ModuleType:
    """Import one plugin; an InputError that names it says why that fails.

    A plugin that the user has named may also be a file of the current folder, which the script ``n2n`` does not search.
    """
    if not is_module_name(name):
        raise InputError(f"a plugin must be the name of a module, got {name!r}; write my_package.denoisers")
    if named and not {"", os.getcwd()} & set(sys.path):
        sys.path.append(os.getcwd())
    importing.append(name)
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            fix = "install it, start in its folder, or set PYTHONPATH to that"
            fix = f"write {name.removesuffix('.py')}" if name.endswith(".py") else fix
            raise InputError(f"the plugin {name} was not found: there is no module {error.name}; {fix}") from error
        how = "correct it, or leave it out" if named else "correct it, or uninstall its package"
        reason = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        shown = "" if isinstance(error, InputError) else " (HYDRA_FULL_ERROR=1 shows where)"
        raise InputError(f"the plugin {name} cannot be imported: {reason}; {how}{shown}") from error
    finally:
        importing.pop()


def is_module_name(name: object) -> bool:
    """Return whether this is text that can name a module: words, separated by dots."""
    return isinstance(name, str) and re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", name) is not None


def claim(group: str, name: str, factory: Callable[..., Any], taken: Collection[str]) -> str:
    """Note who registers ``group=name``, and return the plugin.

    A plugin may register a function or class again, as when a cell of a notebook is run twice. Another plugin may not:
    its settings can be others. A module that is executed again, after another plugin imported it, makes a new object.

    Raises:
        InputError: the name is no word, or it exists.
    """
    plugin = importing[-1] if importing else factory.__module__
    before = registrations.get((group, name))
    if not re.fullmatch(r"[A-Za-z]\w*", name):
        raise InputError(f"a name must be letters, digits and _, got {group}={name!r}; write {group}=my_{group}")
    if before is not None and not is_again(before, Registration(plugin, factory)):
        raise InputError(f"{group}={name} is registered already, by {before.plugin}; choose another name")
    if before is None and name in taken:
        raise InputError(f"{group}={name} is a choice of n2n_lightning already; choose another name")
    registrations[group, name] = Registration(plugin, factory)
    return plugin


def is_again(before: Registration, now: Registration) -> bool:
    """Return whether a plugin registers its own function or class again, perhaps from a changed definition."""
    places = {(factory.__module__, factory.__qualname__) for _, factory in (before, now)}
    return len(places) == 1 and (before.plugin == now.plugin or before.factory is not now.factory)


def plugin_of(group: str, name: object) -> str | None:
    """Return the plugin that registered a name; None if it is our own, or unknown."""
    found = registrations.get((group, str(name)))
    return None if found is None else found.plugin


def registered(group: str) -> list[str]:
    """Return the names that plugins have registered in a group."""
    return [name for other, name in registrations if other == group]


def plugins_of(config: Mapping[str, Any]) -> dict[str, str]:
    """Return what a configuration uses of plugins: ``group=name`` -> plugin."""
    found = {}
    for group, name in used_names(config):
        if plugin := plugin_of(group, name):
            found[f"{group}={name}"] = plugin
    return found


def used_names(config: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """Yield (group, name) of every group of a configuration, of the steps of a chain of noises, and of callbacks."""
    for group in PLUGIN_GROUPS:
        settings = config.get(group) or {}
        yield group, settings.get("family" if group == "model" else "name")
        for step in settings.get("steps") or ():
            yield group, step.get("name") if isinstance(step, Mapping) else None
    for callback in config.get("callbacks") or ():
        yield "callback", callback.get("name") if isinstance(callback, Mapping) else None


def config_folders() -> dict[str, Path]:
    """Return plugin -> the folder ``conf`` in its package, each folder once; a module outside of packages has none."""
    folders: dict[Path, str] = {}
    for name, module in loaded.items():
        file = sys.modules[module.__package__].__file__ if module.__package__ else None
        if file is not None and (folder := Path(file).parent / "conf").is_dir():
            folders.setdefault(folder, name)
    return {name: folder for folder, name in folders.items()}


def how_to_name(plugin: object, ways: Sequence[str] = ("plugins=[{}]", "--plugins {}")) -> str:
    """Say how a user can name a plugin that is not loaded.

    Args:
        plugin: its module, out of a file. None, or text that is no name of a module: it is not known which.
        ways: what the command takes, beside the environment.
    """
    known = is_module_name(plugin) and plugin != "__main__"
    who, name = (f"the plugin {plugin}, which registered it", plugin) if known else ("its plugin", "MODULE")
    listed = ", ".join(way.format(name) for way in ways)
    return f"install {who}, or name it: {listed}, or {VARIABLE}={name} in the environment"
