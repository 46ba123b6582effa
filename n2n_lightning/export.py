"""Write a net as one file for other programs: ``python -m n2n_lightning.export CHECKPOINT --format onnx|torch``."""

from __future__ import annotations

import argparse
import importlib
import io
import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from n2n_lightning import __version__
from n2n_lightning.system import errors
from n2n_lightning.system.arguments import add_plugins_option, make_parser
from n2n_lightning.system.atomic import atomic_write
from n2n_lightning.system.folders import write_fault

if TYPE_CHECKING:
    from torch import Tensor
    from torch.export import ExportedProgram

    from n2n_lightning.models.module import DenoiserModule

FILE_SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}  # --format -> of the file
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")  # needed by --format onnx
METADATA = "metadata.json"  # the extra file in a .pt2
# images, height and width of the comparison; some sizes are multiples of the net's stride, others not
COMPARED = ((1, 1, 1), (1, 33, 47), (2, 64, 96), (3, 130, 257))
MAX_DIFFERENCE = 1e-4  # from PyTorch; another order of summation gives about 1e-6


class ExportError(RuntimeError):
    """The net could not be exported, or the file gives other results than the net."""


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit code: 0 done, 1 the export failed or the file gives other results, 2 the input was wrong."""
    return errors.run_command(lambda: export_to_file(parse(argv)))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(
        "export",
        "Write a denoiser's net as one file, for programs such as ONNX Runtime or for PyTorch without this "
        "package. Before the file is written, its results are compared with the net's.",
    )
    add = parser.add_argument
    add("checkpoint", metavar="CHECKPOINT", help="a checkpoint, the folder of a run, or a trained model's name: unet")
    add("--format", choices=FILE_SUFFIXES, required=True, help="torch: a .pt2 file for torch.export.load")
    add("--output", metavar="FILE", type=Path, help="the file (default: the run's or the model's name, in this folder)")
    add("--overwrite", action="store_true", help="replace FILE where it exists")
    add_plugins_option(parser)
    return parser.parse_args(argv)


def export_to_file(arguments: argparse.Namespace) -> int:
    """Export the net, compare the results, and write the file.

    Raises:
        ValueError: the checkpoint or the output cannot be used, or a package is missing; nothing was written.
    """
    from n2n_lightning.models.checkpoint import find_checkpoint, load_denoiser

    checkpoint, kind = find_checkpoint(arguments.checkpoint), arguments.format
    output = arguments.output or Path(default_name(checkpoint) + FILE_SUFFIXES[kind])
    check_output(output, kind, overwrite=arguments.overwrite)
    if kind == "onnx":
        check_packages()
    module = load_denoiser(checkpoint)
    try:
        content = export(module, kind)
    except ExportError as error:
        errors.report_error(error)
        return errors.FAILED
    try:
        with atomic_write(output) as file:
            file.write(content)
    except OSError as error:
        errors.report_error(error, f"{output} could not be written ({error.strerror}); give another --output")
        return errors.FAILED
    print(f"{output}, {len(content) / 1e6:.1f} MB")
    return errors.DONE


def default_name(checkpoint: Path) -> str:
    """Return the run's name for best.ckpt and last.ckpt, and the file's own name for other checkpoints."""
    path = checkpoint.resolve()
    run = path.parents[1] if path.parent.name == "checkpoints" else path.parent
    return run.name if path.stem in ("best", "last") and run.name else path.stem


def check_output(output: Path, kind: str, *, overwrite: bool) -> None:
    if output.suffix != FILE_SUFFIXES[kind]:
        raise ValueError(f"the output must end in {FILE_SUFFIXES[kind]} for --format {kind}, got {output}; rename it")
    if output.is_file() and not overwrite:
        raise ValueError(f"{output} exists already; give another --output, or --overwrite to replace it")
    if fault := write_fault(output):
        raise ValueError(f"{output} cannot be written ({fault}); give another --output")


def check_packages() -> None:
    try:
        for name in ONNX_PACKAGES:
            importlib.import_module(name)
    except ImportError as error:
        reason = str(error) or type(error).__name__
        packages = f"{', '.join(ONNX_PACKAGES[:-1])} and {ONNX_PACKAGES[-1]}"
        raise ValueError(f"--format onnx needs {packages} ({reason}); pip install 'n2n_lightning[export]'") from error


def export(module: DenoiserModule, kind: str) -> bytes:
    """Return the file's content, after its results were compared with the module's.

    Raises:
        ExportError: the net could not be exported, or the file gives other results.
    """
    about = {"family": module.family, "channels": module.hparams["channels"], "n2n_lightning": __version__}
    about |= {"peak": module.peak, "sample_type": module.sample_type}
    write_as, runner = {"onnx": (as_onnx, onnx_runner), "torch": (as_pt2, pt2_runner)}[kind]
    try:
        with quiet():
            content = write_as(traced(module), about)
            run = runner(content)
        check_same_results(module, run)
    except ExportError:
        raise
    except Exception as error:  # the exporters raise errors of many classes
        reason = (str(error).strip().splitlines() or [""])[0]
        raise ExportError(f"the net could not be exported ({type(error).__name__}: {reason})") from error
    return content


@contextmanager
def quiet() -> Iterator[None]:
    """Hide the exporters' progress and warnings; the user is shown the comparison instead."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def traced(module: DenoiserModule) -> ExportedProgram:
    """Return the net as a graph for any number of images of any size from 1 px."""
    import torch
    from torch.fx.experimental import _config

    net = module.net.eval().requires_grad_(False)
    example = torch.zeros(2, module.hparams["channels"], 34, 38)  # is stored in a .pt2
    free = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    # Otherwise the graph takes only sizes like the example's: 2 px or more, and no multiples of the stride.
    with _config.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]  # torch adds it when it is imported
        program = torch.export.export(net, (example,), dynamic_shapes=(free,))
    # The checks of sizes that are left come from torch's choice of a memory layout, which changes no result. With them,
    # a .pt2 of some nets would refuse single images. The comparison shows that other sizes give the right results.
    program._guards_code = []
    return program


def as_onnx(program: ExportedProgram, about: dict[str, Any]) -> bytes:
    """Return an ONNX model with the weights in it."""
    import torch

    names = ({0: "batch", 2: "height", 3: "width"},)
    exported = torch.onnx.export(
        program, input_names=["noisy"], output_names=["denoised"], dynamic_shapes=names, verbose=False
    )
    assert exported is not None
    graph = exported.model.graph
    graph.outputs[0].shape = graph.inputs[0].shape  # otherwise it is "the smaller of height and padded height"
    for node in graph.all_nodes():
        node.metadata_props.clear()  # source lines, with paths on this machine
    exported.model.metadata_props.update({key: str(value) for key, value in about.items()})
    content: bytes = exported.model_proto.SerializeToString()
    return content


def onnx_runner(content: bytes) -> Callable[[Tensor], Tensor]:
    """Return a function that runs the ONNX model; (N, C, H, W) float32 -> same shape."""
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda noisy: torch.from_numpy(session.run(["denoised"], {"noisy": noisy.numpy()})[0])


def as_pt2(program: ExportedProgram, about: dict[str, Any]) -> bytes:
    """Return a file for ``torch.export.load``."""
    import torch

    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # source lines, with paths on this machine
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={METADATA: json.dumps(about)})
    return file.getvalue()


def pt2_runner(content: bytes) -> Callable[[Tensor], Tensor]:
    """Return a function that runs the .pt2 file; (N, C, H, W) float32 -> same shape."""
    import torch

    return torch.export.load(io.BytesIO(content)).module()


def check_same_results(module: DenoiserModule, run: Callable[[Tensor], Tensor]) -> None:
    """Compare the file's results with the net's, and print the largest difference.

    Raises:
        ExportError: the difference is too large.
    """
    import torch

    for count, height, width in COMPARED:
        shape = (count, module.hparams["channels"], height, width)
        noisy = 1.6 * torch.rand(shape, generator=torch.Generator().manual_seed(0)) - 0.3  # also outside [0, 1]
        with torch.no_grad():
            expected, got = module(noisy), run(noisy)
        if got.shape != expected.shape:
            raise ExportError(f"the exported net turns {shape} into {tuple(got.shape)}; nothing was written")
        difference = (got - expected).abs().max().item()
        print(f"{' x '.join(map(str, shape))}: largest difference from PyTorch {difference:.1e}")
        if not difference <= MAX_DIFFERENCE:  # also for NaN
            rule = f"the difference from PyTorch must be {MAX_DIFFERENCE:g} at most"
            raise ExportError(f"{rule}, got {difference:.1e}; nothing was written")


if __name__ == "__main__":
    sys.exit(main())
