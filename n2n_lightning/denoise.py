"""Denoise single noisy images without training data or settings: ``python -m n2n_lightning.denoise IMAGE...``."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from n2n_lightning.image_io.formats import FORMAT_SUFFIXES
from n2n_lightning.predict import (
    AUTO,
    axes_letters,
    byte_count,
    move_to,
    positive,
    prepare_output,
    run_jobs,
    run_on_files,
)
from n2n_lightning.system.arguments import make_parser

PICTURE_NAME = "denoise.png"


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit code: 0 all done, 1 the work failed, 2 some input was wrong, 130 and 143 on signals."""
    return run_on_files(lambda: denoise_all(parse(argv)))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(
        "denoise",
        "Denoise single noisy images: measure the noise, choose the method, adapt the general denoiser to the images, "
        "and estimate the result's PSNR. Same format, size, type and metadata as the input. The same command again "
        "skips files that are done.",
    )
    add = parser.add_argument
    add("inputs", metavar="IMAGE", nargs="+", help="files, folders (their tree is kept), or patterns such as 'a/*.tif'")
    add("--output", metavar="DIR", type=Path, required=True, help="folder for the denoised files")
    add("--minutes", type=duration, default=1.0, help="of adaptation, for all images of one kind (default: 1; 0: none)")
    add(
        "--spacing",
        type=int,
        choices=(1, 2, 3, 4),
        help="of pixels whose noise is independent: 1, or 2 for a camera's JPEG, up to 4 (default: measured)",
    )
    add("--range", type=positive, metavar="VALUE", help="value that is 1 to the net, except for 8 bits")
    add("--format", choices=sorted(FORMAT_SUFFIXES), help="format of the denoised files (default: each file's own)")
    add("--axes", type=axes_letters, metavar="TZYX", help="the files' dimensions, slowest first: T, Z, C, Y, X letters")
    add("--memory", type=byte_count, default=2.5e9, metavar="SIZE", help="memory to use: 4GB, 800MB (default: 2.5GB)")
    add("--device", default=AUTO, help="cpu, cuda, ... (default: cuda where there is one)")
    add("--overwrite", action="store_true", help="replace files in DIR that this command did not make")
    return parser.parse_args(argv)


def duration(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of minutes, 0 or more, got {text}")
    return value


def denoise_all(arguments: argparse.Namespace) -> int:
    """Find the files, check them, denoise them, and draw some.

    Raises:
        ValueError: the input is wrong; nothing was written.
    """
    from n2n_lightning.inference.denoiser import Denoiser
    from n2n_lightning.inference.file_runner import PROGRAM_BYTES
    from n2n_lightning.inference.jobs import plan_jobs
    from n2n_lightning.inference.manifest import Manifest
    from n2n_lightning.inference.single_files import SingleFileDenoiser
    from n2n_lightning.models.checkpoint import find_checkpoint
    from n2n_lightning.models.trained import GENERAL
    from n2n_lightning.reporting.single_pictures import save_picture

    jobs = plan_jobs(arguments.inputs, arguments.output, arguments.format)
    checkpoint = find_checkpoint(GENERAL)
    denoiser = Denoiser.load(checkpoint, working_bytes=arguments.memory - PROGRAM_BYTES)
    move_to(denoiser, arguments.device)
    options = {name: getattr(arguments, name) for name in ("minutes", "format", "axes")}
    options |= {"spacing": arguments.spacing} if arguments.spacing else {}  # left out as by earlier versions
    manifest = Manifest(arguments.output, checkpoint, options, command="denoise")
    prepare_output(manifest, jobs, overwrite=arguments.overwrite)
    chosen = {name: getattr(arguments, name) for name in ("axes", "minutes", "range", "spacing")}
    runner = SingleFileDenoiser(denoiser, manifest, arguments.format, **chosen)
    code = run_jobs(runner, jobs)
    picture = arguments.output / PICTURE_NAME
    if all(job.output != picture for job in jobs) and save_picture(picture, jobs, arguments.axes):
        print(f"{picture}: noisy, denoised and residual")
    return code


if __name__ == "__main__":
    sys.exit(main())
