"""What the parsers of all commands have in common. Imports nothing heavy."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from n2n_lightning.system import plugin_loading
from n2n_lightning.system.errors import BAD_INPUT, suggest
from n2n_lightning.system.folders import PACKAGE
from n2n_lightning.system.synonyms import plain


class CommandParser(argparse.ArgumentParser):
    """A parser whose error is one line, with the usage and the option that is meant."""

    words: list[str]  # of the command line

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]  # argparse has overloads
        """Keep the words for ``error``."""
        self.words = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Print the message and exit with 2. An unknown option explains more than what is missing because of it."""
        required = [action for action in self._actions if action.required]
        usage = [" ".join([*action.option_strings[-1:], argument_text(action)]) for action in required]
        text = next(filter(None, map(self.option_fault, self.words)), message)
        self.exit(BAD_INPUT, f"error: {text}; usage: {' '.join([self.prog, *usage])} (--help shows all)\n")

    def option_fault(self, word: str) -> str | None:
        """Return the message for an option that does not exist, with the option or argument that is meant."""
        option = word.partition("=")[0]
        options = [known for action in self._actions for known in action.option_strings]
        name = option.lstrip("-")
        if option == name or not name or name[0].isdigit() or any(known.startswith(option) for known in options):
            return None
        for action in self._actions:
            if not action.option_strings and plain(name) in (plain(action.dest), plain(action.dest).rstrip("s")):
                return f"{option} is no option; type {argument_text(action)} without it"
        if len(name) == 1:
            options.sort(key=lambda known: not self._option_string_actions[known].required)
            near = next((f"; did you mean '{known}'?" for known in options if known.startswith(f"--{name}")), "")
        else:
            near = suggest(option, options)
        return f"{option} is no option{near}"


def argument_text(action: argparse.Action) -> str:
    """Return how the argument of an option, or a positional argument, is written in the usage."""
    return f"{action.metavar or action.dest.upper()}{'...' if action.nargs == '+' else ''}"


def make_parser(command: str, description: str) -> argparse.ArgumentParser:
    """Return the parser of ``python -m n2n_lightning.COMMAND``, with ``--version`` and ``--help``."""
    parser = CommandParser(prog=f"python -m n2n_lightning.{command}", description=description)
    parser.add_argument("--version", action="version", version=version_text(), help="show the version and exit")
    return parser


def add_plugins_option(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--plugins``, for commands that load checkpoints."""
    rule = f"modules with nets, losses, ... of your own; also the environment's {plugin_loading.VARIABLE}"
    parser.add_argument("--plugins", metavar="MODULE,...", action=LoadPlugins, help=rule)


class LoadPlugins(argparse.Action):
    """The option that imports plugins at once."""

    def __call__(self, parser: object, namespace: object, values: object, option: object = None) -> None:
        plugin_loading.load(plugin_loading.split_names(str(values)))


def version_text() -> str:
    package = sys.modules["n2n_lightning"]  # is loaded before its modules, which must not import it
    return f"n2n_lightning {package.__version__}"


def command_summaries() -> dict[str, str]:
    """Return what each command does, from the first line of its module, which is read and not imported."""
    summaries = {}
    for path in sorted(PACKAGE.glob("*.py")):
        with path.open(encoding="utf-8") as file:
            if match := re.match(rf'"""(.*): ``python -m n2n_lightning\.{path.stem}\b', file.readline()):
                summaries[path.stem] = match[1]
    return summaries
