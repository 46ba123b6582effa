"""The experiments of Lehtinen et al. 2018, run or collected: ``python -m n2n_lightning.reproduce --root FOLDER``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from n2n_lightning.paper.experiments import BENCHMARKS, TESTED_WITH
from n2n_lightning.paper.jobs import NETS, OURS, STUDIES, make_jobs, run_and_score
from n2n_lightning.paper.table import judge_paper_claims, make_rows, paper_markdown, print_rows
from n2n_lightning.system import errors

STOPPED = (errors.SIGINT, errors.SIGTERM, errors.BAD_INPUT)  # exit codes of a run that no other follows


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m n2n_lightning.reproduce",
        description="Run the experiments of the Noise2Noise paper, those that are not done yet, and print what became "
        "of each beside the paper's figures. Further words are overrides of every run: trainer.max_epochs=2",
    )
    parser.add_argument("--root", required=True, help="folder of the clean training images")
    for benchmark in BENCHMARKS:
        parser.add_argument(f"--{benchmark}", metavar="FOLDER", help="of its images, to score on them")
    parser.add_argument("--size", choices=tuple(STUDIES), default="small", help="for two cores or for an accelerator")
    parser.add_argument("--model", help=f"default: {NETS['full']}, the paper's; {NETS['small']} for two cores")
    parser.add_argument("--only", default=",".join(TESTED_WITH), metavar="NOISE,...", help="default: %(default)s")
    parser.add_argument("--seeds", default="0", metavar="SEED,...", help="default: %(default)s")
    parser.add_argument("--collect", action="store_true", help="run nothing, print what there is")
    args, overrides = parser.parse_known_args(words)
    for word in overrides:
        key = word.lstrip("+~").partition("=")[0]
        if word.startswith("-") or "=" not in word:
            parser.error(f"{word} is neither an option nor an override such as trainer.max_epochs=2")
        if key in OURS or key.split(".")[0] in ("noise", "hydra"):
            parser.error(f"{word} is set by this command for each run; leave it out, or run train yourself")
    seeds = args.seeds.split(",")
    if not all(seed.isdigit() for seed in seeds):
        parser.error(f"--seeds takes whole numbers, got {args.seeds}")
    args.model = args.model or NETS[args.size]
    args.overrides, args.only, args.seeds = overrides, args.only.split(","), sorted(set(map(int, seeds)))
    unknown = sorted(set(args.only) - set(TESTED_WITH))
    if unknown:
        parser.error(f"--only takes {', '.join(TESTED_WITH)}, got {', '.join(unknown)}")
    for option in ("root", *BENCHMARKS):
        folder = getattr(args, option)
        if folder is not None and not args.collect and not Path(folder).is_dir():
            parser.error(f"--{option} must be a folder, got {folder}")
    return args


def main() -> int:
    args = parse()
    folders = {name: getattr(args, name) for name in BENCHMARKS if getattr(args, name)}
    jobs = make_jobs(args)
    codes = [errors.DONE]
    for number, job in enumerate(() if args.collect else jobs, 1):
        print(f"{number} of {len(jobs)}: {' '.join(job.overrides)}", flush=True)
        codes.append(run_and_score(job, folders))
        if codes[-1] in STOPPED:
            break
    rows = make_rows(jobs)
    lines = judge_paper_claims(rows)
    print_rows(rows, lines)
    table = Path("outputs") / STUDIES[args.size] / "table.md"
    if set(args.only) == set(TESTED_WITH) and table.parent.is_dir():
        table.write_text(paper_markdown(rows, lines))
        print(table)
        pictures = table.with_name("pictures.png")
        if args.kodak24 and codes[-1] not in STOPPED:
            from n2n_lightning.paper.pictures import draw_pictures  # loads torch and matplotlib

            try:
                drawn = draw_pictures(jobs, Path(args.kodak24), pictures)
                print(pictures if drawn else "no run to draw pictures of yet")
            except (ValueError, OSError) as error:
                print(f"no pictures: {error}")
    return max(codes)


if __name__ == "__main__":
    sys.exit(errors.run_command(main))
