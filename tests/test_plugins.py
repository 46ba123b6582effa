"""What a plugin registers is a choice like ours: in the configuration, the checks, training and checkpoints."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from plugin_modules import NET, WriteModule
from small_runs import (
    assert_same_weights,
    compose_config,
    compose_settings,
    read_json,
    timeless_table,
    tiny_overrides,
    train_in,
    train_with,
)

from n2n_lightning import load_denoiser
from n2n_lightning.data.pairs import NoisyPair
from n2n_lightning.losses import LOSSES
from n2n_lightning.models.families import FAMILIES
from n2n_lightning.plugins import check_net
from n2n_lightning.system import plugin_loading
from n2n_lightning.system.errors import Interrupted
from n2n_lightning.training.build import build_module, compose_model
from n2n_lightning.training.check import check_config, loss_advice
from n2n_lightning.training.run import train
from n2n_lightning.training.settings import RunSettings

PARTS = """
import torch
from torch import nn
from n2n_lightning import plugins
from n2n_lightning.noise.kinds import Noise
from n2n_lightning.data.pairs import TensorPairs
from n2n_lightning.data.single import SingleData

@plugins.net("small_net", optimizer="sgd")
class SmallNet(nn.Module):
    stride = 1

    def __init__(self, channels: int = 3, *, widths: tuple[int, ...] = (4, 5), scale: float = 1000.0):
        super().__init__()
        sides = (channels, *widths, channels)
        pairs = zip(sides, sides[1:])
        self.layers = nn.Sequential(*(nn.Conv2d(a, b, 3, padding=1) for a, b in pairs))
        self.scale = scale

    def forward(self, noisy):
        return noisy + self.layers(noisy) / self.scale

@plugins.loss("late_loss", minimum_at="median")
def late_loss(estimate, target, *, progress, power: float = 1.0):
    return (1 - progress / 2) * (estimate - target).abs().pow(power).mean()

@plugins.noise("flip_noise")
class FlipNoise(Noise):
    preserves = frozenset({"mode"})

    def __init__(self, p: float = 0.1):
        self.p = p

    def corrupt(self, images, rng):
        return torch.where(torch.rand(images.shape, generator=rng) < self.p, 1 - images, images)

@plugins.data("constant_pairs")
class ConstantPairs:
    peak, sample_type = 255.0, "uint8"

    def __init__(self, *, noise, count: int, value: float = 100.0):
        self.noise, self.count, self.value = noise, count, value

    def load(self, stage):
        clean = torch.full((self.count, 3, 8, 8), self.value)
        return TensorPairs(clean + torch.randn(clean.shape), clean + torch.randn(clean.shape), clean)

    def fingerprint(self):
        return f"{self.count}-{self.value}"

@plugins.data("my_files")
class MyFiles(SingleData):
    pass

plugins.optimizer("rmsprop", settings={"lr": 0.003})(torch.optim.RMSprop)

@plugins.scheduler("linear")
def linear(optimizer, T_max: int, end: float = 0.0):
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 + (end - 1) * step / T_max)
"""
CONSTANT = ("data=constant_pairs", "data.count=16", "data.batch_size=8", "trainer.accelerator=cpu")


class StopInTheSecondEpoch(pl.Callback):
    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 1:
            sys.exit(143)


@pytest.fixture
def parts(write_module: WriteModule) -> None:
    write_module("parts_plugin.py", PARTS)
    plugin_loading.load(["parts_plugin"])


@pytest.mark.usefixtures("parts")
def test_choices_have_the_defaults_of_the_signatures():
    config = compose_config("model=small_net", "loss=late_loss", *CONSTANT, "noise=flip_noise", "scheduler=linear")
    assert config["model"] == {"family": "small_net", "widths": [4, 5], "scale": 1000.0}
    assert config["optimizer"]["name"] == "sgd" and config["loss"] == {"name": "late_loss", "power": 1.0}
    assert config["noise"] == {"name": "flip_noise", "p": 0.1} and config["scheduler"] == {"name": "linear", "end": 0.0}
    assert config["data"].items() >= {"name": "constant_pairs", "count": 16, "value": 100.0, "num_workers": 0}.items()
    assert compose_config(*CONSTANT)["noise"]["name"] == "gaussian"
    assert (
        compose_config("optimizer=rmsprop", "model=unet")["optimizer"].items() >= {"lr": 0.003, "alpha": 0.99}.items()
    )
    assert compose_config("model=small_net", "optimizer=adam", "model.widths=[2]")["optimizer"]["name"] == "adam"
    check_config(config)
    files = compose_config("data=my_files", "data.root=there")
    assert (files["data"]["crop_px"], files["model"]["family"]) == (64, "nafnet")
    check_config(files)


@pytest.mark.usefixtures("parts")
def test_the_checks_know_the_names_and_arguments_of_plugins():
    line = ["model=small_net", "loss=late_loss", *CONSTANT, "optimizer=rmsprop", "scheduler=linear"]
    for word, words in (
        ("++model.scal=2", "model.scal is no setting here; did you mean 'scale'"),
        ("model.widths=7", "model.widths must be a list, got 7"),
        ("loss.power=much", "loss.power must be"),
        ("++loss.progress=1", "loss.progress is no setting here"),
        ("data.value=bright", "data.value must be"),
        ("noise.sigma=-1", "sigma must be 0 or more"),
        ("optimizer.alpha=null", "optimizer.alpha must be"),
        ("scheduler.end=low", "scheduler.end must be"),
        ("loss.name=lat_loss", "did you mean 'late_loss'"),
        ("model.family=smal_net", "did you mean 'small_net'"),
    ):
        config = compose_config(*line, word)
        with pytest.raises(ValueError, match=words.replace("?", "")):
            check_config(config)
    noisy = compose_config(*CONSTANT, "noise=flip_noise", "loss=late_loss")
    assert "loss=late_loss looks for the median: try loss=l0" in str(loss_advice(RunSettings.unchecked(noisy)))
    with pytest.raises(ValueError, match=r"model must be one of .*small_net.*did you mean 'small_net'"):
        compose_model("smallnet")
    with pytest.raises(ValueError, match="loss=late_loss is not for data=single"):
        check_config(compose_config("data=single", "data.root=there", "loss=late_loss"))


@pytest.mark.usefixtures("parts")
def test_a_run_of_plugins_resumes_exactly_and_its_checkpoint_is_plain(course_data: Path, tmp_path: Path):
    words = ("model=small_net", "loss=late_loss", "optimizer=rmsprop", "optimizer.lr=0.01")
    whole = train_in(tmp_path / "whole", course_data, *words, "trainer.max_epochs=2")
    config = compose_config(*tiny_overrides(course_data), *words, "trainer.max_epochs=2")
    cut, labels = tmp_path / "cut", {"model": "small_net", "overrides": {}}
    with pytest.raises(Interrupted):
        train(config, cut, labels, lambda _: cut.mkdir(), [StopInTheSecondEpoch()])
    train_in(cut, course_data, *words, "trainer.max_epochs=2")
    assert_same_weights(*(folder / "checkpoints" / "last.ckpt" for folder in (whole, cut)))
    assert timeless_table(whole) == timeless_table(cut)
    module = load_denoiser(whole)
    assert module.hparams["widths"] == [4, 5] and module.hparams["channels"] == 3
    assert module.denoise(torch.rand(1, 3, 7, 9)).shape == (1, 3, 7, 9)
    used = dict.fromkeys(("model=small_net", "loss=late_loss", "optimizer=rmsprop"), "parts_plugin")
    assert read_json(whole / "result.json")["plugins"] == used == module.recorded_plugins
    with pytest.raises(ValueError, match=r"another configuration: trainer\.max_epochs"):  # the loss ends with the run
        train_in(whole, course_data, *words, "trainer.max_epochs=3")


@pytest.mark.usefixtures("parts")
def test_a_run_on_a_source_of_a_plugin(tmp_path: Path):
    words = ("model=convtrans_relu", *CONSTANT, "scheduler=linear", "optimizer.lr=0.01", "trainer.max_epochs=2")
    folder = train_with(tmp_path / "run", *words)
    result = read_json(folder / "result.json")
    assert result["data"]["fingerprint"] == "16-100.0" and result["status"] == "done"
    assert result["monitor"] == "val/psnr"


def test_a_checkpoint_says_which_plugin_it_needs_and_imports_none(write_module: WriteModule, tmp_path: Path):
    path = write_module("needed_plugin.py", NET.format(name="needed_net"))
    plugin_loading.load(["needed_plugin"])
    module = build_module(compose_settings("model=needed_net"), 3)
    checkpoint = {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)}
    module.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, tmp_path / "a.ckpt")
    assert load_denoiser(tmp_path / "a.ckpt").family == "needed_net"

    del FAMILIES["needed_net"], sys.modules["needed_plugin"], plugin_loading.loaded["needed_plugin"]
    imported = path.with_name("imported")
    path.write_text(f"open({str(imported)!r}, 'w')\n{path.read_text()}")
    with pytest.raises(ValueError, match=r"family 'needed_net', .*the plugin needed_plugin.*N2N_PLUGINS=needed_plugin"):
        load_denoiser(tmp_path / "a.ckpt")
    assert not imported.exists()
    checkpoint["n2n_lightning"]["plugins"] = {"model=needed_net": ["x"], "loss=l2": "y" * 1000}
    torch.save(checkpoint, tmp_path / "b.ckpt")
    with pytest.raises(ValueError, match=r"family 'needed_net', .*N2N_PLUGINS=MODULE"):
        load_denoiser(tmp_path / "b.ckpt")
    checkpoint["n2n_lightning"]["plugins"] = {"model=needed_net": "x; reboot"}
    torch.save(checkpoint, tmp_path / "c.ckpt")
    with pytest.raises(ValueError, match=r"family 'needed_net', .*N2N_PLUGINS=MODULE") as refused:
        load_denoiser(tmp_path / "c.ckpt")
    assert "reboot" not in str(refused.value)
    plugin_loading.load(["needed_plugin"])
    assert imported.exists() and load_denoiser(tmp_path / "b.ckpt").family == "needed_net"


@pytest.mark.usefixtures("parts")
def test_a_net_denoises_where_the_loss_of_a_plugin_is_unknown(course_data: Path, tmp_path: Path):
    run = train_in(tmp_path / "run", course_data, "model=convtrans_relu", "loss=late_loss", "trainer.max_epochs=1")
    del LOSSES["late_loss"]
    module = load_denoiser(run)
    assert module.denoise(torch.rand(1, 3, 8, 8)).isfinite().all()
    with pytest.raises(ValueError, match=r"loss must be one of .*, got 'late_loss'; install the plugin parts_plugin"):
        _ = module.loss


def test_a_loss_that_is_registered_after_its_module_is_made_gets_the_progress(write_module: WriteModule):
    config = compose_config("model=convtrans_relu")
    module = build_module(RunSettings.unchecked(config | {"loss": {"name": "late_loss"}}), 3)
    write_module("parts_plugin.py", PARTS)
    plugin_loading.load(["parts_plugin"])
    assert module.loss_takes == ("progress",)
    pair = NoisyPair(*(torch.full((1, 3, 8, 8), value) for value in (0.0, 1.0)))
    module.eval()  # progress 0.5
    assert module.pair_loss(pair.source, pair.target, pair).item() == 0.75


@pytest.mark.parametrize(
    ("result", "words"), [("error", r"got \(1, 3, 8, 8\); take .mean\(\)"), ("float(error.mean())", "got float")]
)
def test_a_loss_that_gives_no_scalar_is_named(write_module: WriteModule, result: str, words: str):
    head = 'from n2n_lightning import plugins\n@plugins.loss("no_scalar")\n'
    body = f"def no_scalar(estimate, target):\n    error = (estimate - target).abs()\n    return {result}\n"
    write_module("no_scalar_plugin.py", head + body)
    plugin_loading.load(["no_scalar_plugin"])
    module = build_module(
        RunSettings.unchecked(compose_config("model=convtrans_relu") | {"loss": {"name": "no_scalar"}}), 3
    )
    pair = NoisyPair(torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8))
    with pytest.raises(ValueError, match=f"loss=no_scalar must return a scalar tensor, {words}"):
        module.pair_loss(pair.source, pair.target, pair)
    with pytest.raises(ValueError, match=r"model=sequential must keep the shape \(1, 3, 8, 8\), got \(1, 1, 8, 8\)"):
        module.pair_loss(pair.source[:, :1], pair.target, pair)


def test_a_net_whose_types_only_a_type_checker_knows_is_registered(write_module: WriteModule):
    typed = "from __future__ import annotations\n" + NET.format(name="typed_net")
    write_module("typed_plugin.py", typed.replace("width: int = 4", "width: Unknown = 4"))
    plugin_loading.load(["typed_plugin"])
    check_config(compose_config("model=typed_net", "model.width=2", "data=pairs", "data.source=a", "data.target=b"))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("stride = 1", "", "Plain.stride must be the pixels .* got None; write stride = 1"),
        ("channels=3", "planes=3", "Plain must take channels"),
        ("width: int = 4", "loss: int = 4", "Plain must take channels, and no optimizer, loss"),
        ("width: int = 4", "width: object = nn.ReLU", "the argument width.* must be a number"),
        ("*, width: int = 4", "width=4, **more", "the argument .*more of Plain must be a number"),
        ("return self.layers(noisy)", "return self.layers(noisy)[..., :1]", "must return finite values"),
        ("return self.layers(noisy)", "return self.layers(noisy.add_(1))", "must not write into its input"),
        ("return self.layers(noisy)", "return self.layers(noisy - noisy.mean())", "the same alone and in a batch"),
        ("super().__init__()", "super().__init__(); self.idle = nn.Linear(1, 1)", "no gradient for idle.weight"),
        ("super().__init__()", 'super().__init__(); assert channels != 3, "grey only"', "model: grey only"),
        (
            "super().__init__()\n",
            "super().__init__()\n        import torch; self.drawn = torch.rand(1)\n",
            "must give the same after it was saved and loaded",
        ),
    ],
)
def test_what_is_wrong_with_a_net_is_said(write_module: WriteModule, old: str, new: str, words: str):
    text = NET.format(name="odd_net")
    assert old in text
    if "drawn" in new:
        text = text.replace("self.layers(noisy)", "self.layers(noisy) + self.drawn")
    write_module(
        "odd_plugin.py", text.replace(old, new).replace("width, 3", "4, 3").replace("Conv2d(width", "Conv2d(4")
    )
    with pytest.raises(ValueError, match=words):
        plugin_loading.load(["odd_plugin"])
        check_net("odd_net")


def test_a_right_net_passes_the_check(write_module: WriteModule):
    write_module("right_plugin.py", NET.format(name="right_net"))
    plugin_loading.load(["right_plugin"])
    check_net("right_net", "model.width=3")


def test_a_net_may_read_values_of_tensors_in_its_constructor(
    write_module: WriteModule, course_data: Path, tmp_path: Path
):
    line = "import torch; self.drop = [x.item() for x in torch.linspace(0, drop, 4)]"
    text = NET.format(name="drop_net").replace("width: int = 4", "width: int = 4, drop: float = 0.1")
    write_module("drop_plugin.py", text.replace("super().__init__()", f"super().__init__(); {line}"))
    plugin_loading.load(["drop_plugin"])
    check_net("drop_net")
    run = train_in(tmp_path / "run", course_data, "model=drop_net", "model.drop=0.3", "trainer.max_epochs=1")
    assert load_denoiser(run).net.drop == pytest.approx([0, 0.1, 0.2, 0.3])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('plugins.loss("bad")(lambda prediction, target: 0)', "must take estimate, target first"),
        ('plugins.optimizer("bad")(lambda weights, lr=1: 0)', "must take params first"),
        ('plugins.scheduler("bad")(lambda T_max: 0)', "must take optimizer first"),
        ('plugins.noise("bad")(Noise)', "Noise.preserves must be"),
        ('plugins.noise("bad")(type("Some", (Noise,), {"preserves": {"mean"}}))', "Some has no corrupt"),
        ('plugins.loss("bad", minimum_at="average")(lambda estimate, target: 0)', "minimum_at must be mean, median"),
        ('plugins.data("bad")(lambda batch_size: 0)', "data=bad must not take batch_size"),
        ('plugins.loss("bad")(lambda estimate, target, f=print: 0)', "the argument f=.* must be a number"),
        *(
            (f'import functools; plugins.{group}("bad")(functools.partial({what}))', "register a function or class")
            for group, what in (
                *(("net", "Noise"), ("noise", "Noise"), ("data", "Noise"), ("callback", "Noise")),
                ("loss", "lambda estimate, target, power=2: 0, power=1"),
                ("optimizer", "lambda params: 0"),
            )
        ),
    ],
)
def test_what_cannot_be_registered_is_refused(write_module: WriteModule, line: str, words: str):
    head = "from n2n_lightning import plugins\nfrom n2n_lightning.noise.kinds import Noise\n"
    write_module("bad_plugin.py", head + line)
    with pytest.raises(ValueError, match=f"the plugin bad_plugin cannot be imported.*{words}"):
        plugin_loading.load(["bad_plugin"])


def test_a_cell_of_a_notebook_can_be_run_again(write_module: WriteModule):
    path = write_module("cell_plugin.py", NET.format(name="cell_net"))
    plugin_loading.load(["cell_plugin"])
    assert compose_model("cell_net")["model"]["width"] == 4
    path.write_text(path.read_text().replace("width: int = 4", "width: int = 11"))
    importlib.invalidate_caches()
    importlib.reload(sys.modules["cell_plugin"])
    assert compose_model("cell_net")["model"]["width"] == 11
    assert build_module(RunSettings.unchecked(compose_model("cell_net")), 3).hparams["width"] == 11
