"""``graph=``: steps that are captured and repeated give the run without a graph; in imitation, on a CPU, to the bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from graph_recorder import ImitatedGraphs, NotCapturable
from noisy_files import source
from small_runs import (
    FIVE_MODELS,
    compose_config,
    small,
    timeless_table,
    tiny_overrides,
    train_in,
    train_with,
    weights_of,
    write_course_data,
)
from torch import Tensor

from benchmarks.device_steps import Launches
from n2n_lightning.data.pairs import NoisyPair
from n2n_lightning.models.module import DenoiserModule
from n2n_lightning.training.check import check_config
from n2n_lightning.training.graph_step import WARM_UP, GraphLoop, Recorder
from n2n_lightning.training.precision_choice import choose_precision
from n2n_lightning.training.run import fit, prepare_run

pytestmark = pytest.mark.slow  # nearly all train runs

EPOCHS, BATCHES = 4, 3  # two batches of 8 images and one of 4 in an epoch


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write 20 training pairs, so that the last batch of an epoch is smaller."""
    return write_course_data(tmp_path_factory.mktemp("course"), train=20, val=8)


@pytest.fixture(scope="module")
def short(root: Path) -> list[str]:
    return [*tiny_overrides(root), "model=convtrans_relu", f"trainer.max_epochs={EPOCHS}"]


def train_by(recorder: Recorder | None, folder: Path, *overrides: str, callbacks: Sequence[pl.Callback] = ()) -> Path:
    """Train as a command line would, with steps that go through a recorder, if there is one."""
    folder.mkdir(exist_ok=True)
    settings, _ = choose_precision(check_config(compose_config(*overrides)))
    run = prepare_run(settings, folder, {"model": "a", "overrides": {}})
    fit(replace(run, recorder=recorder), callbacks, ())
    return folder


def assert_same(one: Any, other: Any, place: str = "") -> None:
    """Assert that two nested values are equal, tensors to the bit."""
    assert type(one) is type(other), place
    if isinstance(one, Tensor):
        assert one.dtype == other.dtype and torch.equal(one, other), place
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for key in one:
            assert_same(one[key], other[key], f"{place}/{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), place
        for number, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{place}/{number}")
    else:
        assert one == other, place


def assert_same_run(one: Path, other: Path) -> None:
    """Assert that two runs have the same epochs and checkpoints, counters, schedulers and moments included."""
    assert timeless_table(one) == timeless_table(other)
    for name in ("best", "last"):
        first, second = (torch.load(run / f"checkpoints/{name}.ckpt", weights_only=True) for run in (one, other))
        for content in (first, second):
            del content["callbacks"]["RunRecord"], content["n2n_trainer"]  # they hold times
        for key in first.keys() | second.keys():
            assert_same(first[key], second[key], key)


@pytest.mark.parametrize("model", [*FIVE_MODELS, "nafnet", "drunet", "dncnn"])
def test_repeated_steps_are_those_of_a_run_without_a_graph(root: Path, tmp_path: Path, model: str):
    overrides = [*tiny_overrides(root), *small(model), f"trainer.max_epochs={EPOCHS}", "ema=0.9", "scheduler=cosine"]
    plain = train_with(tmp_path / "plain", *overrides)
    graphs = ImitatedGraphs()
    assert_same_run(train_by(graphs, tmp_path / "repeated", *overrides), plain)
    assert (graphs.captures, graphs.runs) == (2, 2 * WARM_UP)  # for each size of batch
    assert graphs.runs + graphs.replays == EPOCHS * BATCHES
    assert_same_run(train_by(Launches(), tmp_path / "written", *overrides), plain)


@pytest.mark.parametrize(
    "overrides",
    [
        ["optimizer=adam", "scheduler=warmup_cosine"],
        ["optimizer=adamw", "+optimizer.amsgrad=true", "scheduler=step"],
        ["optimizer=sgd", "optimizer.nesterov=true", "optimizer.weight_decay=0.01", "scheduler=plateau"],
        ["optimizer=sgd", "optimizer.momentum=0", "scheduler=rampdown", "loss=l1"],
        ["loss=l2_by_noise", "data.augment=[flip,rotate,swap,grey]"],
        ["loss=hdr", "trainer.precision=bf16-mixed", "ema=0.5"],
        ["loss=charbonnier", "data.resident=true"],
    ],
    ids=" ".join,
)
def test_so_are_those_of_other_settings(short: list[str], tmp_path: Path, overrides: list[str]):
    plain = train_with(tmp_path / "plain", *short, *overrides)
    assert_same_run(train_by(ImitatedGraphs(), tmp_path / "repeated", *short, *overrides), plain)


@pytest.mark.parametrize("kind", ["burst", "pairs", "clean"])
def test_and_those_on_crops_of_images_in_memory(noisy_images: Path, tmp_path: Path, kind: str):
    sizes = ["data.crop_px=16", "data.train_pairs=20", "data.batch_size=8", "data.val_fraction=0.4"]
    overrides = [*source(kind, noisy_images), *sizes, "data.augment=[flip]", "data.resident=true"]
    overrides += ["model=convtrans_relu", "trainer.accelerator=cpu", f"trainer.max_epochs={EPOCHS}"]
    overrides += ["noise=bernoulli"] if kind == "clean" else []  # it masks pixels
    plain, graphs = train_with(tmp_path / "plain", *overrides), ImitatedGraphs()
    assert_same_run(train_by(graphs, tmp_path / "repeated", *overrides), plain)
    assert graphs.replays and any(x.dtype == torch.bool for x in graphs.outside) == (kind == "clean")


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_gradients_are_clipped_within_the_step(short: list[str], tmp_path: Path, algorithm: str):
    """Without a graph, an optimizer that clips is not fused, so its last digits differ."""
    clip = ["trainer.gradient_clip_val=0.01", f"+trainer.gradient_clip_algorithm={algorithm}", "optimizer=adam"]
    plain = train_with(tmp_path / "plain", *short, *clip)
    written = train_by(Launches(), tmp_path / "written", *short, *clip)
    assert_same_run(train_by(ImitatedGraphs(), tmp_path / "repeated", *short, *clip), written)
    free = train_with(tmp_path / "free", *short, "optimizer=adam")
    last = "checkpoints/last.ckpt"
    for name, weight in weights_of(plain / last).items():
        torch.testing.assert_close(weights_of(written / last)[name], weight, rtol=1e-4, atol=1e-6)
        assert not torch.allclose(weights_of(free / last)[name], weight, rtol=1e-4, atol=1e-6)


class Stopped(pl.Callback):
    """Break off after a step, as a kill would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise RuntimeError("stopped")


@pytest.mark.parametrize("second", [ImitatedGraphs(), None], ids=["graph", "no graph"])
@pytest.mark.parametrize("clip", [[], ["trainer.gradient_clip_val=1e9"]], ids=["fused", "not fused"])
def test_a_run_resumes_within_an_epoch_with_and_without_a_graph(
    short: list[str], tmp_path: Path, second: Recorder | None, clip: list[str]
):
    overrides = (*short, "optimizer=adam", "scheduler=cosine", "ema=0.9", "save_steps=1", *clip)
    whole = train_by(ImitatedGraphs(), tmp_path / "whole", *overrides)
    with pytest.raises(RuntimeError, match="stopped"):
        train_by(ImitatedGraphs(), tmp_path / "run", *overrides, callbacks=[Stopped(BATCHES + 2)])
    if second is not None or clip:
        train_by(second or Launches(), tmp_path / "run", *overrides)
    else:
        train_with(tmp_path / "run", *overrides)
    assert_same_run(tmp_path / "run", whole)


def test_a_loss_that_is_not_finite_ends_the_run_with_its_step(short: list[str], tmp_path: Path):
    class Infinite(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: NoisyPair, batch_idx: int) -> None:
            if trainer.global_step == 7:
                assert batch.target is not None
                batch.target.fill_(torch.inf)

    with pytest.raises(FloatingPointError, match=r"training loss became inf in step 8 \(epoch 3, batch 2\)"):
        train_by(ImitatedGraphs(), tmp_path / "run", *short, callbacks=[Infinite()])


def test_callbacks_get_the_loss_of_each_step(short: list[str], tmp_path: Path):
    class Losses(pl.Callback):
        def __init__(self) -> None:
            self.seen: list[Tensor] = []

        def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, *_: Any) -> None:
            self.seen.append(outputs["loss"])

    plain, repeated = Losses(), Losses()
    train_by(None, tmp_path / "plain", *short, callbacks=[plain])
    train_by(ImitatedGraphs(), tmp_path / "repeated", *short, callbacks=[repeated])
    assert len(plain.seen) == EPOCHS * BATCHES and torch.equal(torch.stack(plain.seen), torch.stack(repeated.seen))


def test_a_step_takes_only_what_stays_in_its_place(short: list[str], tmp_path: Path):
    """A graph has addresses. Memory that is freed after the capture would be another tensor's at the replay."""
    graphs, staying = ImitatedGraphs(), Staying()
    overrides = (*short, "optimizer=adam", "ema=0.9", "trainer.gradient_clip_val=1")
    train_by(graphs, tmp_path / "run", *overrides, callbacks=[staying])
    assert graphs.outside and {x.untyped_storage().data_ptr() for x in graphs.outside} <= staying.places


class Staying(pl.Callback):
    """Notes the memory of what a run keeps: weights, moments, averages, and where batches and rates are copied to."""

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        loop = trainer.fit_loop.epoch_loop.automatic_optimization
        assert isinstance(loop, GraphLoop) and loop.averaging is not None
        average: Any = loop.averaging._average_model
        kept = [*pl_module.parameters(), *pl_module.buffers(), *average.parameters(), *average.buffers()]
        kept += [x for state in trainer.optimizers[0].state.values() for x in state.values()] + loop.rates
        kept += [x for steps in loop.shapes.values() for x in steps.pair if isinstance(x, Tensor)]
        self.places = {x.untyped_storage().data_ptr() for x in kept}


def test_the_loss_alone_changes_nothing(short: list[str], tmp_path: Path):
    """What is captured cannot count: the mean of the losses is begun anew in each epoch, in other memory."""
    settings = check_config(compose_config(*short))
    module = prepare_run(settings, tmp_path / "run", {"model": "a", "overrides": {}}).module
    assert isinstance(module, DenoiserModule)
    module.training_loss(NoisyPair(torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)))
    assert module.train_loss.weight == 0


# The imitation itself


@pytest.mark.parametrize(
    "line",
    [
        "x.sum().item()",
        "x[x > 0]",
        "x.nonzero()",
        "torch.tensor([1.0]) + x",
        "torch.rand(3)",
        "torch.nn.functional.dropout(x)",
        "float(x[0])",
        "x.repeat_interleave(x.long())",
    ],
)
def test_the_imitation_refuses_what_a_capture_forbids(line: str):
    x = torch.arange(3.0)
    with pytest.raises(NotCapturable):
        ImitatedGraphs().capture(lambda: eval(line, {"torch": torch, "x": x}))


def test_the_imitation_computes_nothing_at_the_capture_and_no_python_at_the_replay():
    x, calls = torch.ones(2), []

    def step() -> Tensor:
        calls.append(x.clone())
        x.add_(1)
        return x.view(1, 2).sum() * 2

    repeat = ImitatedGraphs().capture(step)
    assert x.tolist() == [1, 1] and len(calls) == 1
    assert repeat().item() == 8 and repeat().item() == 12
    assert x.tolist() == [3, 3] and len(calls) == 1


# On a device


CUDA = ("trainer.accelerator=gpu", f"trainer.max_epochs={EPOCHS}")


@pytest.mark.cuda
@pytest.mark.parametrize(
    ("model", "precision"),
    [("convtrans_relu", "32-true"), ("unet", "32-true"), ("dncnn", "32-true"), ("unet", "bf16-mixed")],
)
def test_a_graph_learns_what_launches_learn_on_cuda(root: Path, tmp_path: Path, model: str, precision: str):
    options = (*small(model), *CUDA, f"trainer.precision={precision}", "ema=0.9", "scheduler=cosine")
    runs = [train_in(tmp_path / on, root, *options, f"graph={on}") for on in ("false", "true")]
    for eager, graph in zip(*map(timeless_table, runs), strict=True):
        for key in ("train/loss", "val/loss"):
            assert float(graph[key]) == pytest.approx(float(eager[key]), rel=1e-3 if precision == "32-true" else 0.02)


@pytest.mark.cuda
def test_a_cuda_run_resumes_with_a_graph_and_without(root: Path, tmp_path: Path):
    options = ("model=convtrans_relu", "optimizer=adam", "trainer.gradient_clip_val=1", CUDA[0])
    for epochs, on in ((2, "true"), (4, "false"), (6, "true")):
        run = train_in(tmp_path / "run", root, *options, f"graph={on}", f"trainer.max_epochs={epochs}")
        assert len(timeless_table(run)) == epochs
