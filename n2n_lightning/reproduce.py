"""Run or collect the experiments of Lehtinen et al. 2018: ``python -m n2n_lightning.reproduce --root FOLDER``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from n2n_lightning.paper.experiments import BENCHMARKS, TEST_NOISES
from n2n_lightning.paper.jobs import PAPER_SIZES, PaperRun, make_jobs, run_and_score
from n2n_lightning.paper.table import benchmark_table, judge_paper_claims, make_rows
from n2n_lightning.system import errors
from n2n_lightning.system.arguments import make_parser
from n2n_lightning.system.folders import write_fault

STOP_CODES = (errors.SIGINT, errors.SIGTERM, errors.BAD_INPUT)  # after a run with one of these no other is started
FIXED_OVERRIDES = (  # set by this command for each run
    *("experiment", "size", "study", "model", "loss", "seed", "resume"),
    *("data", "data.root", "data.targets", "data.draws"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit code: the worst of the runs'."""
    return errors.run_command(lambda: reproduce(parse(argv)))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    nets = {name: size.net for name, size in PAPER_SIZES.items()}
    parser = make_parser(
        "reproduce",
        "Run the experiments of the Noise2Noise paper that are not done yet, and print the results beside "
        "the paper's. Further words are overrides for every run: trainer.max_epochs=2",
    )
    parser.add_argument("--root", required=True, help="folder of the clean training images")
    for benchmark in BENCHMARKS:
        parser.add_argument(f"--{benchmark}", metavar="FOLDER", help="folder of its images, to score the runs on them")
    parser.add_argument("--size", choices=tuple(PAPER_SIZES), default="small", help="small: for a CPU with two cores")
    parser.add_argument("--model", help=f"default: {nets['full']}, the paper's; {nets['small']} with --size small")
    parser.add_argument("--only", default=",".join(TEST_NOISES), metavar="NOISE,...", help="default: %(default)s")
    parser.add_argument("--seeds", default="0", metavar="SEED,...", help="default: %(default)s")
    parser.add_argument("--collect", action="store_true", help="run nothing, print the results that there are")
    args, overrides = parser.parse_known_args(argv)
    for word in overrides:
        key = word.lstrip("+~").partition("=")[0]
        if word.startswith("-") or "=" not in word:
            parser.error(f"{word} is neither an option nor an override such as trainer.max_epochs=2")
        if key in FIXED_OVERRIDES or key.split(".")[0] in ("noise", "hydra"):
            parser.error(f"{word} is set by this command for each run; leave it out, or run train yourself")
    seeds = args.seeds.split(",")
    if not all(seed.isdigit() for seed in seeds):
        parser.error(f"--seeds must be integers, got {args.seeds}; give 0 or 0,1,2")
    args.model = args.model or nets[args.size]
    args.overrides, args.only, args.seeds = overrides, args.only.split(","), sorted(set(map(int, seeds)))
    unknown = sorted(set(args.only) - set(TEST_NOISES))
    if unknown:
        parser.error(f"--only must be some of {', '.join(TEST_NOISES)}, got {', '.join(unknown)}")
    for option in ("root", *BENCHMARKS):
        folder = getattr(args, option)
        if folder is not None and not args.collect and not Path(folder).is_dir():
            parser.error(f"--{option} must be a folder, got {folder}")
    return args


def reproduce(args: argparse.Namespace) -> int:
    """Run and score the experiments, print the table, and write it if all experiments were chosen."""
    folders = {name: getattr(args, name) for name in BENCHMARKS if getattr(args, name)}
    jobs = make_jobs(args)
    study = Path("outputs") / PAPER_SIZES[args.size].study
    if not args.collect and (fault := write_fault(study / "table.md")):
        raise errors.InputError(f"{study} cannot be written ({fault}); start the command in another folder")
    codes = [errors.DONE]
    for number, job in enumerate(() if args.collect else jobs, 1):
        print(f"{number} of {len(jobs)}: {' '.join(job.overrides)}", flush=True)
        codes.append(run_and_score(job, folders))
        if codes[-1] in STOP_CODES:
            break
    rows = make_rows(jobs)
    table, claims = benchmark_table(rows), judge_paper_claims(rows)
    table.show()
    print("\n".join(claims))
    if set(args.only) == set(TEST_NOISES) and study.is_dir():
        path = study / "table.md"
        try:
            path.write_text("\n".join([table.markdown(), *(f"* {line}" for line in claims)]) + "\n")
        except OSError as error:
            errors.report_error(error, f"{path} could not be written ({error.strerror}); start in another folder")
            return errors.FAILED
        print(path)
        if args.kodak24 and codes[-1] not in STOP_CODES:
            draw(jobs, Path(args.kodak24), study / "pictures.png")
    return max(codes)


def draw(jobs: Sequence[PaperRun], kodak: Path, path: Path) -> None:
    """Draw what the runs make of a photograph; a failure is printed, since the table is written already."""
    from n2n_lightning.paper.pictures import draw_pictures  # loads torch and matplotlib

    try:
        print(path if draw_pictures(jobs, kodak, path) else "no run to draw pictures of yet")
    except (ValueError, OSError) as error:
        print(f"no pictures: {error}")


if __name__ == "__main__":
    sys.exit(main())
