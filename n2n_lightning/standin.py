"""Write photographs as noisy pairs in the course's format: ``python -m n2n_lightning.standin --output DIR``."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from n2n_lightning.system import errors
from n2n_lightning.system.arguments import make_parser
from n2n_lightning.system.folders import write_fault


def main(argv: Sequence[str] | None = None) -> int:
    """Write both files and return the exit code."""
    return errors.run_command(lambda: write_files(parse(argv)))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = make_parser(
        "standin",
        "Make train_data.pkl and val_data.pkl, the files that data=ee559 reads, from photographs.",
    )
    parser.add_argument("--root", help="folder of photographs (default: those that scikit-image bundles)")
    parser.add_argument("--val-root", help="folder of the validation photographs (default: one in five of --root)")
    parser.add_argument("--train-pairs", type=int, default=50000, help="default: %(default)s, as in the course's files")
    parser.add_argument("--val-pairs", type=int, default=1000, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="seed of crops and draws; default: %(default)s")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    return parser.parse_args(argv)


def write_files(args: argparse.Namespace) -> None:
    """Make both files; raise an InputError for photographs or an output that cannot be used."""
    from n2n_lightning.data.ee559 import FILES, write_pkl
    from n2n_lightning.data.pairs import STAGES, TensorPairs
    from n2n_lightning.data.photos import PhotoData

    try:
        taken = [args.output / name for name in FILES.values() if (args.output / name).exists()]
        if taken:
            raise ValueError(f"{', '.join(map(str, taken))} exists already; choose another --output")
        if fault := write_fault(args.output / FILES["train"]):
            raise ValueError(f"--output {args.output} cannot be written ({fault}); choose another")
        args.output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=args.output) as cache_dir:
            settings = {name: value for name, value in vars(args).items() if name != "output"}
            data = PhotoData(cache_dir=cache_dir, **settings)
            for stage in STAGES:
                source = data.load(stage)
                assert isinstance(source, TensorPairs)
                second = source.target if source.clean is None else source.clean
                assert second is not None
                write_pkl(args.output / FILES[stage], source.source, second)
                print(args.output / FILES[stage])
    except (ValueError, OSError) as error:
        raise errors.InputError(error) from error


if __name__ == "__main__":
    sys.exit(main())
