"""Exit codes, and plain messages for errors. Imports nothing heavy."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable

from n2n_lightning.system.synonyms import nearest
from n2n_lightning.system.threads import limit_spinning

DONE, FAILED, BAD_INPUT, SIGINT, SIGTERM = 0, 1, 2, 130, 143
TIME_WARNING = getattr(signal, "SIGUSR1", None)  # SLURM's --signal=USR1@60: a job's time is nearly over
SIGNALS = {  # signal -> exit code
    getattr(signal, name): code
    for name, code in (("SIGINT", SIGINT), ("SIGTERM", SIGTERM), ("SIGUSR1", SIGTERM))
    if hasattr(signal, name)
}
HYDRA_FULL_ERROR = "HYDRA_FULL_ERROR"  # environment: 1 shows tracebacks
USER_FULL_ERROR = "N2N_FULL_ERROR"  # environment: the user's HYDRA_FULL_ERROR, where our code has overwritten it


MAX_REASON_LENGTH = 300  # characters of a reason within a line


class InputError(ValueError):
    """The input or the configuration is wrong: exit code 2 and one message."""


class Interrupted(Exception):
    """A signal ended the run; ``code`` is the exit code for it."""

    def __init__(self, code: int) -> None:
        super().__init__(f"interrupted by signal {code - 128}")
        self.code = code


def one_line(error: object) -> str:
    """Return an error's message on one line, cut to a readable length; the name of its type if it has none."""
    text = "; ".join(line.strip() for line in str(error).splitlines() if line.strip()) or type(error).__name__
    return text if len(text) <= MAX_REASON_LENGTH else f"{text[:MAX_REASON_LENGTH]}..."


def report_error(error: BaseException, message: str | None = None) -> None:
    """Print one plain message on standard error, after the traceback if the user set ``HYDRA_FULL_ERROR=1``."""
    if os.environ.get(USER_FULL_ERROR, os.environ.get(HYDRA_FULL_ERROR)) == "1":
        traceback.print_exception(error)
    print(f"error: {escape_controls(message or str(error))}", file=sys.stderr, flush=True)


def escape_controls(text: str, keep: str = "\n") -> str:
    r"""Escape control characters, which file names may contain and a terminal would obey.

    >>> escape_controls("a\x1b[2Jb.png")
    'a\\x1b[2Jb.png'
    """
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def signal_exit_code(error: SystemExit) -> int:
    """Return the exit code of the signal that raised a SystemExit.

    Our handler for SIGTERM raises it with 143. Lightning's has no code for SIGTERM, and 1 for SIGINT.
    """
    return SIGTERM if error.code in (None, SIGTERM) else SIGINT


def run_command(main: Callable[[], int | None]) -> int:
    """Run a command; turn its exceptions and signals into an exit code and at most one message."""
    limit_spinning()
    numbers = [number for number in SIGNALS if number != signal.SIGINT]  # SIGINT raises KeyboardInterrupt
    before = {number: signal.signal(number, lambda *_: sys.exit(SIGTERM)) for number in numbers}
    try:
        code = exit_code_of(main)
        return FAILED if output_is_closed() else code
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def exit_code_of(main: Callable[[], int | None]) -> int:
    """Call a command, print at most one message, and return the exit code."""
    try:
        return main() or DONE
    except KeyboardInterrupt:
        return SIGINT
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else DONE
    except ValueError as error:  # InputError, and Hydra's errors for values that it cannot parse
        report_error(error)
        return BAD_INPUT
    except BrokenPipeError:  # nobody reads the output any more, as behind ``| head``
        return FAILED
    except Exception as error:
        report_error(error, f"{type(error).__name__}: {error}; HYDRA_FULL_ERROR=1 shows where")
        return FAILED


def output_is_closed() -> bool:
    """Flush standard output, and return whether nobody reads it any more.

    What is left is then dropped, because Python would print an error about it when it ends.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def suggest(name: str, names: Iterable[str], least: float = 0.5) -> str:
    """Return the hint "; did you mean 'x'?", or an empty string if no name is near; ``least`` as for ``nearest``."""
    near = nearest(name, names, least)
    return f"; did you mean '{near}'?" if near else ""
