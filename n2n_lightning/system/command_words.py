"""Read the words of a command line as users type them: quote paths for Hydra, and say what it cannot read."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException

from n2n_lightning.system.errors import InputError
from n2n_lightning.system.run_names import plain_value

TEXT_SETTINGS = (  # paths and names of folders: what is typed is the value, and no number, list or sweep
    *("data.root", "data.val_root", "data.source", "data.target", "data.clean"),
    *("data.val_source", "data.val_target", "data.val_clean", "data.cache_dir"),
    *("init_from", "checkpoint", "output", "study", "hydra.run.dir", "hydra.sweep.dir"),
)
GRAMMAR_SIGNS = set("'\"([{$")  # signs with which a value may be more than words and commas


def quote_paths(words: Sequence[str], *, sweep: bool) -> list[str]:
    """Return the words of a command line with the paths quoted that Hydra's grammar refuses or takes for other values.

    A file or folder of exactly the name that was typed is what the user means. Otherwise Hydra's lists,
    interpolations, quotes and, with ``sweep``, commas mean what they mean in Hydra.

    Raises:
        InputError: a name with a comma exists, and so do all the names between the commas.
    """
    return [quote_path(word, sweep=sweep) for word in words]


def quote_path(word: str, *, sweep: bool) -> str:
    key, _, value = word.partition("=")
    reading = read(word)
    if value in ("", "null"):
        return word
    if key.lstrip("+") not in TEXT_SETTINGS:  # such as a setting of a plugin's data
        return word if reading is not None or not os.path.lexists(value) else f"{key}={quoted(value)}"
    if is_quoted(reading, value) and is_path(inside := plain_value(value)):
        return f"{key}={text_of(inside)}"
    parts = value.split(",")
    several = len(parts) > 1 and (all(map(is_path, parts)) or not GRAMMAR_SIGNS & set(value))
    if is_path(value) and not (sweep and several and all(map(is_path, parts))):
        return f"{key}={text_of(value)}"
    if several and (sweep or reading is None):
        if sweep and is_path(value):
            one, more = (shlex.quote(f"{key}={text}") for text in (text_of(value), ",".join(map(text_of, parts))))
            raise InputError(f"{value} exists, and so do {' and '.join(parts)}; type {one} for the one, or {more}")
        return f"{key}={','.join(map(text_of, parts))}"
    if several or (reading is not None and is_grammar(reading, value)):
        return word
    return f"{key}={text_of(value)}"


def read(word: str) -> Override | None:
    """Return Hydra's reading of a word; None if it cannot read it."""
    try:
        return OverridesParser.create().parse_override(word)
    except (HydraException, ValueError):
        return None


def is_path(text: str) -> bool:
    return bool(text) and os.path.lexists(os.path.expanduser(text))


def is_quoted(reading: Override | None, value: str) -> bool:
    """Return whether the value is one text in Hydra's quotes."""
    return value[0] in "'\"" and reading is not None and isinstance(reading.value(), str)


def is_grammar(reading: Override, value: str) -> bool:
    """Return whether Hydra reads a value as quoted text, an interpolation, a list, a dict or a function."""
    return (
        reading.is_sweep_override()
        or "${" in value
        or is_quoted(reading, value)
        or isinstance(reading.value(), list | dict)
    )


def text_of(value: str) -> str:
    """Return the value that Hydra reads as this text; ``~`` at its start is the user's home."""
    text = value if os.path.lexists(value) else os.path.expanduser(value)
    return quoted(text, escape=os.path.lexists(text))


def quoted(text: str, *, escape: bool = True) -> str:
    """Return a value that Hydra reads as this text, in quotes where it needs them.

    ``escape=False`` leaves interpolations such as ``${study}`` as they are.
    """
    reading = read(f"key={text}")
    if reading is not None and not reading.is_sweep_override() and reading.value() == text and "${" not in text:
        return text
    if escape:
        text = re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + r"\${", text)
    quote = Quote.single if '"' in text else Quote.double
    return QuotedString(text, quote).with_quotes()


def syntax_fault(word: str) -> str:
    """Return the message for a word that Hydra cannot read: the place, and the line to type.

    >>> print(syntax_fault("loss.name=l1=2"))
    loss.name=l1=2 cannot be read from column 13:
        loss.name=l1=2
                    ^
    if the value is this text, type 'loss.name="l1=2"'
    """
    from rich.cells import cell_len

    readable = max((end for end in range(len(word)) if read(word[:end]) is not None), default=0)
    key, equals, value = word.partition("=")
    caret = " " * cell_len(word[:readable]) + "^"
    lines = [f"{word} cannot be read from column {readable + 1}:", f"    {word}", f"    {caret}"]
    if equals and read(f"{key}=x") is not None:
        lines.append(f"if the value is this text, type {shlex.quote(f'{key}={quoted(value)}')}")
    else:
        lines.append("a setting is KEY=VALUE, such as model=unet")
    return "\n".join(lines)
