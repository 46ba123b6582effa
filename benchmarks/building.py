"""Measure how long it takes to build the pairs of ``data=photos``: ``python -m benchmarks.building --root FOLDER``.

Each number of cores builds a new file, and the files must be equal. Hashing the photographs is not measured.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.measuring import machine, save
from benchmarks.tables import show
from n2n_lightning.data.photos import PhotoData


def build(root: str, pairs: int, cores: int) -> tuple[float, str]:
    """Build the training pairs on this many cores; return the seconds, and the SHA-256 of the file."""
    allowed = os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory() as cache:
        data = PhotoData(root=root, train_pairs=pairs, cache_dir=cache)
        assert data.fingerprint()  # reads the photographs before the clock runs
        os.sched_setaffinity(0, sorted(allowed)[:cores])
        try:
            started = time.perf_counter()
            data.load("train")
            seconds = time.perf_counter() - started
        finally:
            os.sched_setaffinity(0, allowed)
        (path,) = Path(cache).glob("photos-pairs-*.npy")
        with path.open("rb") as file:
            return seconds, hashlib.file_digest(file, "sha256").hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure how long building pairs from photographs takes.")
    parser.add_argument("--root", required=True, help="folder of photographs; one in five is held back")
    parser.add_argument("--pairs", type=int, default=50_000)
    parser.add_argument("--cores", default=f"1,{os.cpu_count()}", help="numbers of cores, with commas between")
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args()
    cores = list(dict.fromkeys(int(number) for number in args.cores.split(",")))
    found = {number: [build(args.root, args.pairs, number) for _ in range(args.rounds)] for number in cores}
    seconds = {number: statistics.median(taken for taken, _ in rounds) for number, rounds in found.items()}
    digests = sorted({digest for rounds in found.values() for _, digest in rounds})
    print(f"{machine()}; {args.pairs} pairs from {args.root}; files equal: {'yes' if len(digests) == 1 else 'NO'}")
    rows = [
        {
            "cores": number,
            "seconds": taken,
            "pairs/s": args.pairs / taken,
            "core ms a pair": 1e3 * number * taken / args.pairs,
            f"speed over {cores[0]}": seconds[cores[0]] / taken,
        }
        for number, taken in seconds.items()
    ]
    show([*rows[0]], ([f"{value:.4g}" for value in row.values()] for row in rows))
    save("building", {"pairs": args.pairs, "sha256": digests, "rows": rows})


if __name__ == "__main__":
    main()
