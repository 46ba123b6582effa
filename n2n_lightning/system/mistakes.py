"""Say what a mistaken command line of Hydra should be. Imports nothing heavy."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from n2n_lightning.system import plugin_loading
from n2n_lightning.system.errors import InputError, suggest
from n2n_lightning.system.synonyms import nearest, plain, same_word, similar_in_group, split

KINDS = ("name", "family", "type", "kind", "_target_")  # last parts with which people choose from a group
NEAR_SETTING = 0.6  # similarity of settings that may be meant
EXAMPLE = "a setting is KEY=VALUE, such as model=unet; --help lists all"


class Names(NamedTuple):
    """The names that a command knows. Functions, because some need a tenth of a second."""

    groups: Sequence[str]
    choices: Callable[[str], list[str]]  # of a group
    settings: Callable[[], list[str]]  # dotted, of the configuration with the choices of the command line
    other_settings: Callable[[], Mapping[str, list[str]]]  # setting -> the choices that have it, as GROUP=CHOICE
    options: Sequence[str]  # of the command, with their dashes

    def choosing(self, name: str) -> str | None:
        """Return ``GROUP=CHOICE`` for the name of a choice; None if there is no such choice."""
        found = ((group, choice) for group in self.groups for choice in self.choices(group))
        return next((f"{group}={choice}" for group, choice in found if plain(choice) == plain(name)), None)

    def setting(self, key: str) -> tuple[str | None, list[str]]:
        """Return the group or the setting that is meant, or None; and the choices that have it, if not the present."""
        known = [*self.groups, *self.settings()]
        group, last = split(key)
        if key in known or (last in KINDS and group in self.groups):
            return key if key in known else group, []
        if near := same_word(key, known):
            return near, []
        others = {key: choices for key, choices in self.other_settings().items() if key not in known}
        if other := same_word(key, others):
            return other, others[other]
        if near := similar_in_group(key, known):
            return near, []
        if other := similar_in_group(key, others):
            return other, others[other]
        return (None if group in self.groups else nearest(key, known, NEAR_SETTING)), []


def check_options(words: Sequence[str], names: Names) -> None:
    """Raise an InputError for an option that does not exist, with the setting that is meant."""
    for number, word in enumerate(words):
        option, _, value = word.partition("=")
        if not option.startswith("-") or any(known.startswith(option) for known in names.options):
            continue
        near = nearest(option, names.options, 0.7)
        if near is not None:
            raise InputError(f"{option} is no option; did you mean '{near}'?")
        if not value and number + 1 < len(words) and not re.search("^-|=", words[number + 1]):
            value = words[number + 1]
        raise InputError(f"{option} is no option; settings have no dashes{typed(option.lstrip('-'), value, names)}")


def check_words(words: Sequence[str], names: Names) -> None:
    """Raise an InputError for a word that is no ``KEY=VALUE``, with the line that is meant."""
    for number, word in enumerate(words):
        before = words[number - 1] if number else ""
        after = [*words[number + 1 :], ""]
        if "=" in before and (before.endswith(",") or word.startswith(",")) and (word == "," or "=" not in word):
            line = before + "".join(words[number : number + 1 + run_length(words[number:])])
            raise InputError(f"choices have no blanks between them; type {shlex.quote(line)}")
        if after[0].startswith("=") or (word.endswith("=") and after[0] and "=" not in after[0]):
            raise InputError(f"a setting has no blanks; type {word}{after[0]}{after[1] if after[0] == '=' else ''}")
        if "=" not in word and not word.startswith("~"):
            raise InputError(bare_word(word, after[0], names))


def run_length(words: Sequence[str]) -> int:
    """Return how many of the next words belong to the same list of choices as the first."""
    count = 0
    while count + 1 < len(words) and "=" not in words[count + 1] and words[count].endswith(","):
        count += 1
    return count


def bare_word(word: str, after: str, names: Names) -> str:
    """Return the message for a word without ``=``; ``after`` is the next one."""
    key, colon, value = word.partition(":")
    if colon and key and value and names.setting(key)[0]:
        return f"{word} is no setting{typed(key, value, names)}"
    if choice := names.choosing(word):
        return f"{word} is no setting; type {choice}"
    if Path(word).exists():
        return (
            f"{word} is no setting; type {shlex.quote(f'data.root={word}')}, with data=burst or another choice of data"
        )
    value = after if after and "=" not in after else ""
    return f"{word} is no setting{typed(word, value, names)}"


def typed(key: str, value: str, names: Names) -> str:
    """Return the line to type for a key that was written in another way, and its value."""
    setting, _ = names.setting(key)
    if setting is None:
        return f"; {EXAMPLE}"
    return f"; type {setting}={shlex.quote(value) if value else 'VALUE'}"


def explain_text(text: str, words: Sequence[str], names: Names, *, sweep: bool) -> str:
    """Return one message for the text of one of Hydra's errors, with the name or the line that is meant."""
    if match := re.search(r"Could not find '([^']+)/([^'/]*)'", text):
        return unknown_choice(match[1], match[2], text, names)
    if match := re.search(r"Could not override '([^']+)'", text):
        return unknown_setting(match[1], words, names, sweep=sweep)
    if match := re.search(r"Ambiguous value for argument '(.+)'", text):
        return several_values(match[1])
    if match := re.search(r"Sweep parameters '(.+)' requires --multirun", text):
        return f"{match[1]} is several values; put -m before it to train with each: -m {shlex.quote(match[1])}"
    if match := re.search(r"Multiple values for (\S+?)\. To override", text) or re.search(
        r"force-add of config groups is not supported: '\+\+(.+?)=", text
    ):
        word = next((word for word in words if word.lstrip("+").startswith(f"{match[1]}=")), f"{match[1]}=NAME")
        return f"{match[1]} is there already, so it needs no +; type {shlex.quote(word.lstrip('+'))}"
    return text


def unknown_choice(group: str, name: str, text: str, names: Names) -> str:
    """Return the message for a choice that does not exist. For Hydra's own groups, its error lists the choices."""
    listed = text.partition("Available options in")[2].partition("Config search path")[0].splitlines()[1:]
    options = names.choices(group) or listed
    if not options:
        return f"{group} is no group of settings{suggest(group, names.groups)}"
    unnamed = group in plugin_loading.PLUGIN_GROUPS and not plugin_loading.loaded
    hint = " (a plugin's names need plugins=[MODULE])" if unnamed else ""
    return f"{group} must be one of {', '.join(options)}, got {name!r}{suggest(name, options)}{hint}"


def unknown_setting(key: str, words: Sequence[str], names: Names, *, sweep: bool) -> str:
    """Return the message for a setting that does not exist."""
    near, choices = names.setting(key)
    if choices:
        needed = " or ".join(choices)
        if near == key:
            return f"{key!r} needs {needed}"
        return f"{key!r} is no setting here; did you mean {near!r}? It needs {needed}"
    if near == key:
        return f"{key!r} is no setting of this configuration"
    if near is None and split(key)[0] in names.groups:
        word = next((word for word in words if word.startswith(f"{key}=")), f"{key}=VALUE")
        return f"{key!r} is no setting in conf/; --help lists them; type {shlex.quote('+' + word)} to add it"
    meant = f"; did you mean {near!r}?" if near else ""
    added = f"; where the sweep chooses the group, ++{key}=... sets it" if sweep else ""
    return f"{key!r} is no setting{meant}; --help lists them, + before a key adds one{added}"


def several_values(word: str) -> str:
    """Return the message for a sweep without ``-m``."""
    key, _, value = word.partition("=")
    if re.fullmatch(r"-?\d+,\d+", value):
        return (
            f"{word} is two values; a number has a point: {key}={value.replace(',', '.')}; -m {word} trains with each"
        )
    text = '"' + value + '"'
    return (
        f"{word} is several values; put -m first to train with each: -m {shlex.quote(word)}; "
        f"a list is {shlex.quote(f'{key}=[{value}]')}, one text is {shlex.quote(f'{key}={text}')}"
    )
