"""Paths work as typed; what Hydra cannot read is shown with the line to type."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from n2n_lightning.system import hydra_app
from n2n_lightning.system.command_words import quote_path, quote_paths, quoted, syntax_fault
from n2n_lightning.system.errors import InputError
from n2n_lightning.system.folders import config_folder

AWKWARD = [
    *("a=b", "a,b", "a(b", "a(b)", "[ab]", "a[1", "{ab}", "a{b}", "it's", 'say"x"', '"x"', "'x'", "a#b", "a&b", "~ab"),
    *("a b", " a", "a ", "a%b", "a$b", "${x}", "a${b}c", "a:b", "a\\b", "a\\", "\\${x}", "Ä", "肝臓", "🔬", "a'b\"c"),
    *("2024", "1e3", "1_000", "true", "a;b", "a!b", "a`b", "a<b", "-x", "a\nb", "range(3)", "glob(*)", "unet,seed=1"),
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def hydra_reads(word: str) -> object:
    """Return the value that a run gets."""
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return hydra_app.resolve_config(compose("train", [word]))["data"]["root"]


@pytest.mark.parametrize("sweep", [False, True])
def test_a_folder_that_exists_is_taken_as_typed(sweep: bool, folder: Path):
    for name in AWKWARD:
        (folder / name).mkdir()
    words = quote_paths([f"data.root={name}" for name in AWKWARD], sweep=sweep)
    assert [OverridesParser.create().parse_override(word).is_sweep_override() for word in words] == [False] * len(words)
    for name in ("${x}", "\\${x}", "a\\", "肝臓", "2024", "a,b"):
        assert hydra_reads(words[AWKWARD.index(name)]) == name


@given(st.text(min_size=1, max_size=20).filter(str.strip))
def test_quoted_text_is_read_as_it_is(text: str):
    override = OverridesParser.create().parse_override(f"data.root={quoted(text)}")
    value = override.value()
    assert not override.is_sweep_override() and isinstance(value, str)
    assert value == text or "${" in text


@pytest.mark.parametrize(
    ("typed", "single", "swept"),
    [
        ("photos", "photos", "photos"),
        ("a/b.tif", "a/b.tif", "a/b.tif"),
        ("a=b", '"a=b"', '"a=b"'),  # neither exists, and it can only be a name
        ("2025", '"2025"', '"2025"'),
        ("null", "null", "null"),
        ("one,two", "one,two", "one,two"),  # Hydra then says that one run has one value
        ("肝,腎", '"肝","腎"', '"肝","腎"'),
        ("2025,2026", "2025,2026", '"2025","2026"'),
        ("[one,two]", "[one,two]", "[one,two]"),
        ("${oc.env:HOME}/x", "${oc.env:HOME}/x", "${oc.env:HOME}/x"),
        ('"a=b"', '"a=b"', '"a=b"'),  # as Hydra's documentation teaches
        ("'a b','c d'", "'a b','c d'", "'a b','c d'"),
        ("choice(one,two)", "choice(one,two)", "choice(one,two)"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_a_name_that_does_not_exist_keeps_hydras_grammar(typed: str, single: str, swept: str):
    assert quote_path(f"data.root={typed}", sweep=False) == f"data.root={single}"
    assert quote_path(f"data.root={typed}", sweep=True) == f"data.root={swept}"


def test_other_settings_are_left_to_hydra_unless_it_cannot_read_them(folder: Path):
    for name in ("1", "a,b", "肝"):
        (folder / name).mkdir()
    words = ["seed=1", "model=a,b", "loss=腎", "~scheduler", "+data.folder=肝"]
    assert quote_paths(words, sweep=True) == [*words[:-1], '+data.folder="肝"']


def test_a_tilde_is_the_home(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(folder / "ho=me"))
    assert quote_path("data.root=~/photos", sweep=False) == f'data.root="{folder}/ho=me/photos"'
    (folder / "ho=me/photos").mkdir(parents=True)
    for typed in ("~/photos", "'~/photos'"):
        assert quote_path(f"data.root={typed}", sweep=False) == f'data.root="{folder}/ho=me/photos"'
    (folder / "~").mkdir()
    (folder / "~/photos").mkdir()
    assert quote_path("data.root=~/photos", sweep=False) == 'data.root="~/photos"'


def test_a_comma_is_asked_about_where_both_readings_exist(folder: Path):
    for name in ("a", "b", "a,b"):
        (folder / name).mkdir()
    assert quote_path("data.root=a,b", sweep=False) == 'data.root="a,b"'
    with pytest.raises(InputError, match=r"""type 'data.root="a,b"' for the one, or data.root=a,b$"""):
        quote_path("data.root=a,b", sweep=True)
    assert quote_path('data.root="a,b"', sweep=True) == 'data.root="a,b"'
    os.rmdir("b")
    assert quote_path("data.root=a,b", sweep=True) == 'data.root="a,b"'


@pytest.mark.parametrize(
    ("word", "column", "cells", "value"),
    [
        ("seed=1=2", 7, 6, "1=2"),
        ("model=肝臓(", 7, 6, "肝臓("),
        ("x=it's", 5, 4, "it's"),
        ("x='肝臓'=1", 7, 8, "'肝臓'=1"),
        ("x=[1]2", 6, 5, "[1]2"),
    ],
)
def test_a_word_that_cannot_be_read_is_shown_with_its_place_and_the_line_to_type(
    word: str, column: int, cells: int, value: str
):
    """A letter of Chinese takes two cells of a terminal."""
    first, shown, caret, fix = syntax_fault(word).splitlines()
    assert first == f"{word} cannot be read from column {column}:"
    assert (shown, caret) == (f"    {word}", " " * (4 + cells) + "^")
    (typed,) = shlex.split(fix.partition("type ")[2])
    assert OverridesParser.create().parse_override(typed).value() == value
