"""Which of the processes of one run this is (its rank), as the launcher tells it. Imports nothing heavy."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

RANK_VARIABLES = ("RANK", "SLURM_PROCID")  # of torchrun and SLURM: the number among all processes
LAUNCHER_VARIABLES = ("NODE_RANK", "LOCAL_RANK")  # of Lightning's launcher, which counts the machines and on them
COUNT_VARIABLES = ("WORLD_SIZE", "SLURM_NTASKS")


def follows(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether the launcher counts this process as another than the first, which leads the run.

    Outside of a run on several devices this says nothing: SLURM may run other things side by side.
    """
    names = RANK_VARIABLES if any(name in environment for name in RANK_VARIABLES) else LAUNCHER_VARIABLES
    return any(environment.get(name, "0") not in ("", "0") for name in names)


def launched_count(environment: Mapping[str, str] = os.environ) -> int | None:
    """Return how many processes torchrun or SLURM has started for the run; None if neither has."""
    if "TORCHELASTIC_RUN_ID" in environment or "SLURM_PROCID" in environment:
        counts = [environment[name] for name in COUNT_VARIABLES if name in environment]
        return int(counts[0]) if counts else None
    return None


def silence() -> None:
    """Drop what this process prints from here on: rank 0 tells everything once. Python's own errors stay visible."""
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # until the process ends
