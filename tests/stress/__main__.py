"""Run the stress tests, one part after the other, and print the figures as a table: ``make stress``."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from warm_processes import warm_context

from benchmarks.tables import show
from n2n_lightning.system.atomic import write_json
from stress.figures import Figure
from stress.parts import PARTS, run_part


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m stress", description=__doc__)
    parser.add_argument("parts", nargs="*", default=PARTS, help=f"any of {', '.join(PARTS)}; default: all")
    parser.add_argument("--quick", action="store_true", help="a short version: minutes instead of most of an hour")
    parser.add_argument("--seed", type=int, default=0, help="seed of random moments and damages; default: %(default)s")
    parser.add_argument("--output", type=Path, default=Path("outputs/benchmarks/stress.json"))
    args = parser.parse_args(arguments)
    if unknown := sorted(set(args.parts) - set(PARTS)):
        parser.error(f"parts are {', '.join(PARTS)}, got {', '.join(unknown)}")
    figures: list[Figure] = []
    for part in args.parts:
        began = time.monotonic()
        with ProcessPoolExecutor(1, mp_context=warm_context()) as pool:
            found = pool.submit(run_part, part, args.quick, args.seed).result()
        print(f"{part}: {time.monotonic() - began:.0f} s", flush=True)
        figures += found
    cells = ((figure.measure, figure.bar, figure.measured, "yes" if figure.met else "NO") for figure in figures)
    show(["measure", "bar", "measured", "met"], cells, right=False)
    write_json(args.output, [figure._asdict() for figure in figures])
    return 0 if all(figure.met for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
