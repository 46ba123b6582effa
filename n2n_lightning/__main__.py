"""Run a command by its name: ``n2n train ...`` does what ``python -m n2n_lightning.train ...`` does."""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Mapping

from n2n_lightning.system.arguments import command_summaries, version_text
from n2n_lightning.system.errors import InputError, run_command, suggest


def main() -> int:
    """Run the command that the first word names, or list the commands; return the exit code.

    The command becomes the main module, as with ``python -m``: processes that it starts look there for what to import.
    """
    first = sys.argv[1] if sys.argv[1:] else "--help"
    summaries = command_summaries()
    if first in summaries:
        if os.getcwd() not in sys.path and not sys.flags.safe_path:
            sys.path.insert(0, os.getcwd())  # as python -m does
        sys.argv = sys.argv[1:]
        runpy.run_module(f"n2n_lightning.{first}", run_name="__main__", alter_sys=True)
    return run_command(lambda: answer(first, summaries))


def answer(word: str, summaries: Mapping[str, str]) -> None:
    """Print the version or the commands; refuse any other word."""
    if word == "--version":
        print(version_text())
    elif word in ("-h", "--help"):
        print("usage: n2n COMMAND ...\n\ncommands:")
        for name, summary in summaries.items():
            print(f"  {name:<10}  {summary}")
        print("\nn2n COMMAND --help shows the options of a command.")
    else:
        hint = suggest(word, summaries)
        raise InputError(f"the command must be one of {', '.join(summaries)}, got {word!r}{hint}")


if __name__ == "__main__":
    sys.exit(main())
