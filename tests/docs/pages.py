"""Find what is wrong with the project's pages: links, commands, names, paths, and the length of lines."""

from __future__ import annotations

import argparse
import ast
import functools
import importlib
import importlib.util
import re
import shlex
import textwrap
import urllib.parse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from n2n_lightning import reproduce
from n2n_lightning.system.arguments import CommandParser
from n2n_lightning.system.folders import config_folder
from n2n_lightning.system.hydra_app import ONE_FILE_GROUPS, group_choices, resolve_config
from n2n_lightning.training.check import check_config, check_data

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "outputs/README.md")]
PAGES += sorted((ROOT / "examples").rglob("*.md"))
PAGES += sorted((ROOT / "docs").rglob("*.md")) + sorted((ROOT / "weights").rglob("*.md"))
CHANGELOG = ROOT / "CHANGELOG.md"  # it names what is gone: its links and lines count, its commands do not
MAX_PROSE = 120  # characters a line
MAX_CELL = 100  # characters a cell of a table: more is a paragraph

HYDRAS = {"hydra/launcher": ("basic", "joblib")}  # choices of Hydra, and of packages that we require
HYDRA_COMMANDS = ("train", "evaluate")
ARGPARSE_COMMANDS = ("denoise", "predict", "export", "report", "repeat", "reproduce", "standin", "completion")
PLACEHOLDER = re.compile(r"[A-Z][A-Z0-9_]*")  # FOLDER, PATH, N
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`]+)`")
OUR_PATH = re.compile(r"(?:n2n_lightning|conf|docs|tests|benchmarks|tools|weights)/[\w./*-]*")
CHOICE = re.compile(r"(\w+(?:/\w+)*)=([\w./,|]+)")


class Block(NamedTuple):
    """Code that a page sets apart: its language ("" if none is named) and text."""

    language: str
    text: str


class Page(NamedTuple):
    """A page in parts: blocks of code, rows of tables, and the other lines."""

    blocks: list[Block]
    rows: list[str]
    prose: list[str]


def split_page(text: str) -> Page:
    """Split Markdown into code, tables and prose."""
    page = Page([], [], [])
    lines = iter([*text.splitlines(), ""])
    code: list[str] = []
    before = ""
    for line in lines:
        if line.startswith("    ") and (code or not before.strip()) and not is_item(line):
            code.append(line)
        else:
            if code:
                page.blocks.append(Block("", "\n".join(code)))
                code = []
            if fence := re.match(r"\s*```(\w*)$", line):
                inside = list(iter(lambda: next(lines).strip("\n"), line.split("`")[0] + "```"))
                page.blocks.append(Block(fence[1], "\n".join(inside)))
            elif line.startswith("|"):
                page.rows.append(line)
            else:
                page.prose.append(line)
        before = line
    return page


def is_item(line: str) -> bool:
    """Return whether a line is an item of a list, or goes on with one."""
    return re.match(r"\s*([*-]|\d+\.) ", line) is not None


def code_spans(page: Page) -> list[str]:
    """Return the code within the text and the tables; a span may go over the end of a line."""
    return [" ".join(span.split()) for text in ("\n".join(page.prose), *page.rows) for span in CODE.findall(text)]


def commands(page: Page) -> list[str]:
    """Return every command that a page shows, in one line each."""
    plain = [block.text.replace("\\\n", " ") for block in page.blocks if block.language in ("", "bash", "console")]
    shown = [line for text in plain for line in text.splitlines()] + code_spans(page)
    words = [" ".join(line.strip().removeprefix("$ ").split()) for line in shown]
    return [line for line in words if re.match(r"python |n2n |make [a-z]", line)]


def faults(path: Path, text: str) -> Iterator[str]:
    """Yield what is wrong with the page ``path``."""
    page = split_page(text)
    yield from wide_lines(page)
    for target in LINK.findall("\n".join((*page.prose, *page.rows))):
        yield from link_faults(path, target)
    if path == CHANGELOG:
        return
    for command in dict.fromkeys(commands(page)):
        yield from command_faults(command)
    for span in dict.fromkeys(code_spans(page)):
        yield from name_faults(span)
    for block in page.blocks:
        if block.language == "python":
            yield from import_faults(block.text)


def wide_lines(page: Page) -> Iterator[str]:
    """Yield lines of text that are too long, and cells that hold a paragraph."""
    for line in page.prose:
        if len(line) > MAX_PROSE:
            yield f"a line has {len(line)} characters: {line}"
    for row in page.rows:
        for cell in row.strip("|").split(" | "):
            if len(LINK.sub("]", cell).strip()) > MAX_CELL:
                yield f"a cell holds a paragraph: {cell}"


def link_faults(path: Path, target: str) -> Iterator[str]:
    """Yield a fault where the file of a relative link, or the heading that it names, does not exist."""
    if urllib.parse.urlsplit(target).scheme:
        return
    name, _, anchor = target.partition("#")
    file = path.parent / name if name else path
    if not file.exists():
        yield f"no file for the link {target}"
    elif anchor and anchor not in anchors(file.read_text()):
        yield f"no heading for the link {target}"


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    headings = [line.lstrip("#").strip() for line in split_page(text).prose if re.match(r"#+ ", line)]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def command_faults(command: str) -> Iterator[str]:
    """Yield why a command that a page shows would be refused."""
    words = [word for word in shlex.split(command, comments=True) if word != "..."]
    if words[0] == "n2n":
        name = words[1] if words[1:] and not words[1].startswith("-") else "__main__"
        words = ["python", "-m", f"n2n_lightning.{name}", *words[2:]]
    if words[0] == "make":
        known = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        yield from (f"no target: make {word}" for word in words[1:] if "=" not in word and word not in known)
    elif words[1] != "-m":
        if not (ROOT / words[1]).is_file():
            yield f"no script: {command}"
    elif importlib.util.find_spec(words[2]) is None:
        yield f"no module: {command}"
    else:
        name = words[2].removeprefix("n2n_lightning.")
        try:
            if name in HYDRA_COMMANDS:
                compose_jobs(name, words[3:])
            elif name in ARGPARSE_COMMANDS:
                parse_arguments(name, words[3:])
        except (HydraException, ValueError) as error:
            yield f"{command}: {error}"


def compose_jobs(name: str, words: Sequence[str]) -> None:
    """Compose and check what ``train`` or ``evaluate`` would run; of a sweep, so many jobs that each choice is in one.

    Raises:
        HydraException, ValueError: a choice, a key or a value is wrong, or one is missing.
    """
    overrides = OverridesParser.create().parse_overrides([word for word in words if not word.startswith("-")])
    kept = [override for override in overrides if not PLACEHOLDER.fullmatch(str(override.value()))]
    ours = [o for o in overrides if "." in o.key_or_group and not o.key_or_group.startswith("hydra")]
    given = [f"{o.key_or_group}={o.value()}" for o in ours if o not in kept]
    given += [f"checkpoint={o.value()}" for o in overrides if o not in kept and o.key_or_group == "checkpoint"]
    choices = [sweep_choices(override) for override in kept if not override.key_or_group.startswith("hydra")]
    if "--help" in words:
        given.append("data.root=FOLDER")
    check = check_config if name == "train" else check_data
    for number in range(max(map(len, choices), default=1)):
        check(composed(name, (*given, *(choice[number % len(choice)] for choice in choices))))


def sweep_choices(override: Override) -> list[str]:
    """Return a swept override as one override for each choice, and any other as it is."""
    if not override.is_sweep_override():
        return [str(override.input_line)]
    if override.is_interval_sweep():
        return [f"{override.key_or_group}={override.value().start}"]
    return [f"{override.key_or_group}={choice}" for choice in override.sweep_string_iterator()]


@functools.cache
def composed(name: str, overrides: tuple[str, ...]) -> dict[str, object]:
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return resolve_config(compose(name, list(overrides)))


class Parsed(Exception):
    """The arguments of a command are right."""


def parse_arguments(name: str, words: Sequence[str]) -> None:
    """Hand a command's words to its own parser, and do nothing of its work.

    Raises:
        ValueError: they are wrong.
    """
    plain = ["1" if word == "N" else word.removesuffix("...") for word in words]
    message: list[str] = []
    parse_known_args = argparse.ArgumentParser.parse_known_args

    def parse_only(*given: object, **options: object) -> None:
        _, unknown = parse_known_args(*given, **options)  # type: ignore[arg-type]  # as the command gave them
        if unknown:
            raise ValueError(f"unrecognized arguments: {' '.join(unknown)}")
        raise Parsed

    with (
        mock.patch.object(CommandParser, "error", lambda _, text: message.append(text) or exit(2)),
        mock.patch("sys.argv", [name, *plain]),
    ):
        try:
            if name == "reproduce":  # it has a check of its own for overrides; --collect spares it the folders
                reproduce.parse([*plain, "--collect"])
            else:
                with mock.patch.object(CommandParser, "parse_known_args", parse_only):
                    importlib.import_module(f"n2n_lightning.{name}").parse(plain)
        except Parsed:
            return
        except SystemExit as stop:
            if stop.code:
                raise ValueError(" ".join(message)) from stop


def name_faults(span: str) -> Iterator[str]:
    """Yield choices of a group, such as ``data=kodak24``, and paths of the project that do not exist."""
    for group, names in CHOICE.findall(span) if not span.startswith("python ") else ():
        if group in groups():
            for name in re.split(r"[,|]", names):
                folder, _, stem = f"{group}/{name}".rpartition("/")
                known = (*group_choices(folder), *HYDRAS.get(folder, ()))
                if stem.strip(".") and not PLACEHOLDER.fullmatch(stem) and stem not in known:
                    yield f"no choice: {group}={name}"
    if OUR_PATH.fullmatch(span) and not any(ROOT.glob(span.rstrip("/"))):
        yield f"no such path: {span}"


@functools.cache
def groups() -> set[str]:
    folders = {path.relative_to(ROOT / "conf").as_posix() for path in (ROOT / "conf").rglob("*") if path.is_dir()}
    return folders | set(ONE_FILE_GROUPS)


def import_faults(text: str) -> Iterator[str]:
    """Yield names that a page's Python imports from this package and that it does not have."""
    for node in ast.walk(ast.parse(textwrap.dedent(text))):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("n2n_lightning"):
            module = importlib.import_module(str(node.module))
            yield from (f"no name: {node.module}.{a.name}" for a in node.names if not hasattr(module, a.name))
