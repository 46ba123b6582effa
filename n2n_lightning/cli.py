"""What the entry points share: exit codes, plain messages, names of run folders. Imports nothing heavy."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

DONE, FAILED, BAD_INPUT, SIGINT, SIGTERM = 0, 1, 2, 130, 143
SIGNALS = {  # -> exit code; SLURM's --signal=USR1@60 tells a job that its time is nearly up
    getattr(signal, name): code
    for name, code in (("SIGINT", SIGINT), ("SIGTERM", SIGTERM), ("SIGUSR1", SIGTERM))
    if hasattr(signal, name)
}
UNNAMED = (  # overrides that a run folder's name leaves out
    *("model", "study", "resume", "experiment", "debug"),
    *("save_minutes", "save_steps"),
)
MAX_NAME = 180
HYDRA_FULL_ERROR, ASKED_FOR_TRACEBACKS = "HYDRA_FULL_ERROR", "N2N_FULL_ERROR"


class InputError(ValueError):
    """The input or the configuration was wrong: exit code 2 and one message."""


def config_folder() -> Path:
    """The Hydra configs: inside the package when installed from a wheel, beside it in a checkout."""
    inside = Path(__file__).parent / "conf"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "conf"


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The resolved configuration in plain types.

    Raises:
        InputError: a value that has no default was not given.
    """
    try:
        config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[assignment]  # a dict it is
    except MissingMandatoryValue as error:
        key = error.full_key
        raise InputError(f"{key} is needed and not set; set {key}=...") from error
    return config


def report_error(error: BaseException, message: str | None = None) -> None:
    """One plain message on standard error; the traceback too when the user set ``HYDRA_FULL_ERROR=1``."""
    if os.environ.get(ASKED_FOR_TRACEBACKS, os.environ.get(HYDRA_FULL_ERROR)) == "1":
        traceback.print_exception(error)
    print(f"error: {printable(message or str(error))}", file=sys.stderr, flush=True)


def printable(text: str, keep: str = "\n") -> str:
    """The same with what would steer a terminal, and names of files can hold, as escapes.

    >>> printable("a\x1b[2Jb.png")
    'a\\x1b[2Jb.png'
    """
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def signal_code(error: SystemExit) -> int:
    """Exit code for the signal behind a SystemExit: ours carries 143, Lightning's none for SIGTERM and 1 for SIGINT."""
    return SIGTERM if error.code in (None, SIGTERM) else SIGINT


def run_hydra(main: Callable[[], None], config_name: str) -> int:
    """Run a ``hydra.main`` function and turn every way to end into an exit code and at most one message."""
    asked = os.environ.get(HYDRA_FULL_ERROR, "0")
    os.environ |= {ASKED_FOR_TRACEBACKS: asked, HYDRA_FULL_ERROR: "1"}  # else Hydra exits by itself, with code 1
    try:
        return guarded(main, config_name)
    finally:
        os.environ[HYDRA_FULL_ERROR] = asked


def guarded(main: Callable[[], int | None], config_name: str = "") -> int:
    """Run a command and turn every way to end into an exit code and at most one message."""
    ending = [number for number in SIGNALS if number != signal.SIGINT]  # that one is Python's KeyboardInterrupt
    before = {number: signal.signal(number, lambda *_: sys.exit(SIGTERM)) for number in ending}
    try:
        return main() or DONE
    except (HydraException, OmegaConfBaseException) as error:
        report_error(error, explain(error, config_name))
        return BAD_INPUT
    except KeyboardInterrupt:
        return SIGINT
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else DONE
    except ValueError as error:  # InputError, and what Hydra says of values that it cannot make sense of
        report_error(error)
        return BAD_INPUT
    except Exception as error:
        report_error(error, f"{type(error).__name__}: {error}; HYDRA_FULL_ERROR=1 shows where")
        return FAILED
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_name(model: str, overrides: Sequence[str]) -> str:
    """Folder name of a run: the model, then every other override, sorted; paths by their last part.

    >>> run_name("unet", ["model=unet", "seed=1", "optimizer=sgd"])
    'unet,optimizer=sgd,seed=1'
    """
    named = []
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        if key not in UNNAMED and not key.startswith("hydra."):
            value = value.strip("'\"").rstrip("/").rpartition("/")[2] if "/" in value else value
            named.append(f"{key}={re.sub(r'[^A-Za-z0-9_.+=,-]', '', value)}")
    name = ",".join([model, *sorted(named)])
    if len(name) <= MAX_NAME:
        return name
    return f"{name[:MAX_NAME]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


# at import, since a worker of hydra/launcher=joblib asks for it before it calls anything of ours
OmegaConf.register_new_resolver("run_name", run_name, replace=True)


def explain(error: BaseException, config_name: str) -> str:
    """Hydra's chain of causes as one message, with the nearest key or option there is."""
    lines: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        lines += [line.strip() for line in str(cause).splitlines() if line.strip()]
        cause = cause.__cause__
    text = "\n".join(dict.fromkeys(lines))
    match = re.search(r"Could not find '([\w@./]+)/([\w.-]+)'", text)
    if match:
        group, name = match.groups()
        options = sorted(path.stem for path in (config_folder() / group).glob("*.yaml"))
        return f"{group} must be one of {', '.join(options)}, got {name!r}" + nearest(name, options)
    match = re.search(r"Could not override '([\w@./]+)'", text)
    if match:
        keys = known_keys(config_name)
        hint = "; --help lists them, + before a key adds one"
        if {"-m", "--multirun"} & set(sys.argv):
            hint += f", and where a sweep chooses the group itself ++{match[1]}=... sets it"
        return f"{match[1]!r} is no setting" + nearest(match[1], keys) + hint
    return text


def nearest(name: str, names: Iterable[str]) -> str:
    """The hint "; did you mean 'x'?", or nothing."""
    near = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else ""


def known_keys(config_name: str) -> list[str]:
    """Every key of the configuration with the groups that the command line chose, dotted, and the groups."""
    GlobalHydra.instance().clear()
    chosen = [
        argument for argument in sys.argv[1:] if (config_folder() / f"{argument.replace('=', '/')}.yaml").exists()
    ]
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = OmegaConf.to_container(compose(config_name, chosen))
    keys: list[str] = []

    def walk(prefix: str, node: object) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                keys.append(f"{prefix}{key}")
                walk(f"{prefix}{key}.", value)

    walk("", config)
    return keys
