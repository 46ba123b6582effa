"""What the parsers of all commands have in common. Imports nothing heavy."""

from __future__ import annotations

import argparse
import re
import sys

from n2n_lightning.system import plugins
from n2n_lightning.system.folders import PACKAGE


def make_parser(command: str, description: str) -> argparse.ArgumentParser:
    """Return the parser of ``python -m n2n_lightning.COMMAND``, with ``--version`` and ``--help``."""
    parser = argparse.ArgumentParser(prog=f"python -m n2n_lightning.{command}", description=description)
    parser.add_argument("--version", action="version", version=version_text(), help="show the version and exit")
    return parser


def add_plugins_option(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--plugins``, for commands that load checkpoints."""
    rule = f"modules with nets, losses, ... of your own; also the environment's {plugins.VARIABLE}"
    parser.add_argument("--plugins", metavar="MODULE,...", action=LoadPlugins, help=rule)


class LoadPlugins(argparse.Action):
    """The option that imports plugins at once."""

    def __call__(self, parser: object, namespace: object, values: object, option: object = None) -> None:
        plugins.load(plugins.split_names(str(values)))


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
