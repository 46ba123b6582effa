"""Names of run folders, which tell what the command line has set. Imports nothing heavy."""

from __future__ import annotations

import hashlib
import posixpath
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

from n2n_lightning.system.atomic import read_json

UNNAMED_OVERRIDES = (  # overrides that the name of a run's folder leaves out
    *("model", "study", "resume", "experiment", "hparams", "size", "debug", "plugins"),
    *("save_minutes", "save_steps", "logger"),
    *("trainer.devices", "trainer.num_nodes", "trainer.strategy"),  # which do not change the result
)
SET_BY_MINUTES = ("data.train_pairs", "trainer.max_epochs")  # settings that follow from ``minutes``
UNNAMED_GROUPS = ("hydra.", "logger.")  # the same for all settings of these groups
MAX_NAME_BYTES = 180  # in UTF-8, without the hash; file systems allow 255
MAX_VALUE_BYTES = 60
KEPT_SIGNS = "_.+=,-"  # beside letters and digits; safe in a shell and on every file system


def run_name(model: str, overrides: Sequence[str], *, hashed: bool = True) -> str:
    """Return the folder name of a run: the model, then the other overrides, sorted.

    ``hashed=False`` is for names that carry a hash of everything anyway.

    >>> run_name("unet", ["model=unet", "seed=1", "optimizer=sgd"])
    'unet,optimizer=sgd,seed=1'
    """
    named = [f"{key.replace('/', '.')}={short_text(value, hashed=hashed)}" for key, value in named_pairs(overrides)]
    name = ",".join([model, *sorted(named)])
    return name if len(name.encode()) <= MAX_NAME_BYTES else f"{cut(name, MAX_NAME_BYTES)}-{short_hash(name)}"


def short_text(value: str, *, hashed: bool = True) -> str:
    """Return a value of an override as it is in the name of a run: letters and digits of any script, and some signs.

    Of a path it is the last part. A hash of the whole value follows if folders or signs are left out, if the value is
    long, or if it could be taken for two overrides.

    >>> short_text("photos"), short_text("[flip,swap]"), short_text("/archive/photos")
    ('photos', 'flip,swap', 'photos-b3dbc411')
    """
    unquoted = plain_value(value)
    whole = posixpath.normpath(unquoted) if "/" in unquoted else unquoted
    text = whole.rpartition("/")[2]
    if text == value and re.fullmatch(r"\[[^][{}]*\]", text):  # of a list, commas are enough
        text = re.sub(r",\s+", ",", text[1:-1])
    letters = unicodedata.normalize("NFC", text)  # one of the two forms that accents have; macOS takes them for one
    kept = "".join(c for c in letters if c in KEPT_SIGNS or unicodedata.category(c)[0] in "LMN")
    short = cut(kept, MAX_VALUE_BYTES)
    if not hashed or (short == text and "/" not in whole and not re.search(",.*=", short)):
        return short
    return "-".join(filter(None, (short, short_hash(whole))))


def cut(text: str, most_bytes: int) -> str:
    """Return the longest start of the text that takes at most so many bytes in UTF-8."""
    return text.encode()[:most_bytes].decode(errors="ignore")


def short_hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:8]


def named_overrides(overrides: Sequence[str]) -> dict[str, str]:
    """Return the overrides that are part of a run's name: key -> value without Hydra's quotes."""
    return {key: plain_value(value) for key, value in named_pairs(overrides)}


def named_pairs(overrides: Sequence[str]) -> list[tuple[str, str]]:
    """Return key and value of the overrides that are part of a run's name, as they are written."""
    pairs = (override.lstrip("+~").partition("=") for override in overrides)
    return [(key, value) for key, _, value in pairs if is_named(key) and (key, value) != ("trainer", "ddp")]


def is_named(key: str) -> bool:
    return key not in UNNAMED_OVERRIDES and not key.startswith(UNNAMED_GROUPS)


def plain_value(text: str) -> str:
    r"""Return a value of Hydra's override grammar without its quotes or backslashes.

    >>> plain_value("'my photos'"), plain_value("my\\ photos"), plain_value(r"'it\'s'")
    ('my photos', 'my photos', "it's")
    """
    quote = text[:1]
    if len(text) > 1 and quote in "'\"" and text.endswith(quote):
        return re.sub(rf"\\+(?={quote}|$)", lambda found: "\\" * (len(found[0]) // 2), text[1:-1])
    return re.sub(r"\\([\\()\[\]{}:=, \t])", r"\1", text)


def another_folder(folder: Path, study: str) -> str:
    """Return what to set so that a run does not go to ``folder``, where the settings and the study have put it."""
    if folder.absolute().parent.as_posix().endswith(f"/outputs/{study}"):
        return "set another study=NAME"
    return "set another hydra.run.dir=FOLDER (with -m hydra.sweep.dir)"


def find_run_folder(study: Path, model: str, overrides: Sequence[str]) -> Path:
    """Return the folder of a run: the one that an earlier version began under its own name, else that of today's name.

    Args:
        study: the folder of runs.
        model: the choice of ``model=``.
        overrides: the command line's.
    """
    folder, earlier = study / run_name(model, overrides), study / earlier_run_name(model, overrides)
    if earlier == folder or (folder / "result.json").exists():
        return folder
    recorded = read_json(earlier / "result.json").get("overrides", {})
    return earlier if named_overrides(overrides) in (recorded, plain_values(recorded)) else folder


def plain_values(overrides: Mapping[str, str]) -> dict[str, str]:
    """Return recorded overrides with plain values; versions up to 0.2.0 recorded them with Hydra's quotes."""
    return {key: plain_value(str(value)) for key, value in overrides.items()}


def earlier_run_name(model: str, overrides: Sequence[str]) -> str:
    """Return the name that versions up to 0.2.0 gave to a run's folder."""
    named = []
    for key, value in named_pairs(overrides):
        last = value.strip("'\"").rstrip("/").rpartition("/")[2] if "/" in value else value
        named.append(f"{key}={re.sub(r'[^A-Za-z0-9_.+=,-]', '', last)}")
    name = ",".join([model, *sorted(named)])
    return name if len(name) <= MAX_NAME_BYTES else f"{name[:MAX_NAME_BYTES]}-{short_hash(name)}"
