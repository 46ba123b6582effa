"""Which of the processes of one run this is (its rank), as the launcher tells it. Imports nothing heavy."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

RANK_VARIABLES = {"torchrun": ("RANK",), "slurm": ("SLURM_PROCID",), None: ("NODE_RANK", "LOCAL_RANK")}
COUNT_VARIABLES = {"torchrun": "WORLD_SIZE", "slurm": "SLURM_NTASKS"}
INTERACTIVE = ("bash", "interactive")  # names of SLURM's jobs that Lightning takes for a shell


def find_starter(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return what has started the processes of a run: "torchrun", "slurm", or None for Lightning or nothing.

    A task of SLURM that is alone, and a shell there, start the others themselves.
    """
    if "TORCHELASTIC_RUN_ID" in environment:
        return "torchrun"
    is_shell = environment.get("SLURM_JOB_NAME") in INTERACTIVE
    is_task = "SLURM_PROCID" in environment and environment.get("SLURM_NTASKS", "1") != "1"
    return "slurm" if is_task and not is_shell else None


def follows(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether the launcher counts this process as another than the first, which leads the run.

    Outside of a run on several devices this says nothing: SLURM may run other things side by side.
    """
    names = RANK_VARIABLES[find_starter(environment)]
    return any(environment.get(name, "0") not in ("", "0") for name in names)


def launched_count(environment: Mapping[str, str] = os.environ) -> int | None:
    """Return how many processes torchrun or SLURM has started for the run; None if neither has."""
    starter = find_starter(environment)
    count = environment.get(COUNT_VARIABLES[starter], "") if starter else ""
    return int(count) if count.isdigit() else None


def is_on_first_machine(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether the process runs on the machine of the first one."""
    return all(environment.get(name, "0") in ("", "0") for name in ("GROUP_RANK", "NODE_RANK", "SLURM_NODEID"))


def silence() -> None:
    """Drop what this process prints from here on: rank 0 tells everything once. Python's own errors stay visible."""
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # until the process ends
