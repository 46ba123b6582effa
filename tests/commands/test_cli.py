"""The command line: wrong input gets one message and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from conftest import Command
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio
from small_runs import (
    assert_refused,
    evaluate_main,
    read_json,
    smooth_images,
    tiny_overrides,
    train_in,
    write_course_data,
    write_photograph,
)

from n2n_lightning import Denoiser
from n2n_lightning.models.trained import GENERAL, find_trained

SINGLE = ("data=single", "data.root=a")
CHAIN = ("data=clean", "data.root=a", "noise=chain")


UNUSABLE_TRAINER_VALUES = (  # Lightning accepts them, and the first step would fail, hang or do nothing
    *(
        ([f"trainer.precision={value}"], ["precision must be one of 32-true, ", f"got {value}", "precision=bf16-mixed"])
        for value in ("64-true", "64", "bf16-true", "16-true", "transformer-engine")
    ),
    *(
        ([f"trainer.precision={value}", "trainer=cpu"], [f"precision={value} needs a GPU", "precision=bf16-mixed"])
        for value in ("16-mixed", "16")
    ),
    *(
        ([f"+trainer.overfit_batches={value}"], ["overfit_batches must be 0", f"got {value}", "set debug=overfit"])
        for value in (1, 0.5)
    ),
    (["+trainer.barebones=true"], ["barebones must be false, got true", "leave it out"]),
    *(
        ([f"+trainer.accumulate_grad_batches={value}"], ["must be 1 or more", f"got {value}", "grad_batches=1"])
        for value in (0, -1)
    ),
    (["trainer.gradient_clip_val=-1"], ["gradient_clip_val must be 0 or more, got -1", "null for no clipping"]),
    (["trainer.gradient_clip_val=nan"], ["gradient_clip_val must be a number", "got nan"]),
    (["trainer.limit_train_batches=nan"], ["limit_train_batches must be", "got nan"]),
    *(
        ([f"+trainer.strategy={value}"], [f"strategy must be auto, got {value}", "strategy=auto"])
        for value in ("ddp_spawn", "single_device")
    ),
    (["+trainer.num_nodes=2"], ["num_nodes must be 1 without trainer=ddp, got 2", "add trainer=ddp"]),
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["model=unett"], ["model must be one of", "'unett'", "did you mean 'unet'?"]),
        (["optimizer=sdg"], ["optimizer must be one of adam, adamw, adamw_fast, sgd", "'sdg'", "did you mean 'sgd'?"]),
        (
            ["data=photo"],
            ["data must be one of bsds300, burst, clean, ", "single, got 'photo'; did you mean 'photos'?"],
        ),
        (["noise=gausian"], ["noise must be one of bernoulli, brown, chain, ", "text", "did you mean 'gaussian'?"]),
        (["scheduler=cosin"], ["did you mean 'cosine'?"]),
        (["debug=fest"], ["did you mean 'fast'?"]),
        (["experiment=five_model"], ["did you mean 'five_models'?"]),
        (["loss=l3"], ["loss must be one of charbonnier, hdr, l0, l1, ", "'l3'"]),
        (["optimiser=adam"], ["'optimiser' is no setting", "did you mean 'optimizer'?"]),
        (["optimizer.learning_rate=1"], ["'optimizer.learning_rate' is no setting"]),
        (["trainer.max_epoch=3"], ["'trainer.max_epoch' is no setting", "did you mean 'trainer.max_epochs'?"]),
        (["sed=1"], ["'sed' is no setting", "did you mean 'seed'?"]),
        (["+model.activatoin=relu", "model=nn_relu"], ["model.activatoin", "did you mean 'activation'?"]),
        (["+model.depth=3"], ["model.depth is no setting", "model takes no settings"]),
        (["+optimizer.learning=3"], ["optimizer.learning is no setting", "lr"]),
        (["+trainer.max_epoch=3"], ["trainer.max_epoch", "did you mean 'max_epochs'?"]),
        (["+data.batchsize=3"], ["data.batchsize", "did you mean 'batch_size'?"]),
        (["model=nn_relu", "model.activation=tanh"], ["model.activation must be 'relu' or 'sigmoid', got 'tanh'"]),
        (["+model.channels=4"], ["model.channels is no setting"]),
        (["+optimiser.lr=1"], ["optimiser is no setting", "did you mean 'optimizer'?"]),
        (["+trainer.callbacks=[]"], ["trainer: callbacks must be null", "callbacks=[{name: NAME}]"]),
        (["trainer.devices=2"], ["devices must be 1 without trainer=ddp, got 2"]),
        (["trainer.limit_val_batches=0"], ["limit_val_batches must be above 0"]),
        *((words, ["trainer", *said]) for words, said in UNUSABLE_TRAINER_VALUES),
        (["study=[3]"], ["study must be text, got [3]"]),
        (["resume=maybe"], ["resume must be true or false, got 'maybe'"]),
        (["~optimizer"], ["optimizer must be a group of settings"]),
        (["scheduler=null"], []),
        (["optimizer.lr=-1"], ["optimizer.lr must be above 0, got -1"]),
        (["optimizer.lr=0"], ["optimizer.lr must be above 0, got 0"]),
        (["optimizer.lr=nan"], ["optimizer.lr must be a number, got nan"]),
        (["optimizer.lr=inf"], ["optimizer.lr must be a number, got inf"]),
        (["+optimizer.differentiable=true"], ["optimizer.differentiable is no setting here"]),
        (["scheduler=step", "scheduler.step_size=0"], ["step_size must be 1 or more, got 0", "step_size=10"]),
        (["optimizer.lr=abc"], ["optimizer.lr must be a number", "'abc'"]),
        (["optimizer.betas=[0.9]"], ["optimizer.betas must be a list of 2", "[0.9]"]),
        (["scheduler=step", "scheduler.step_size=a"], ["scheduler.step_size must be an integer, got 'a'"]),
        (["data.batch_size=0"], ["batch_size must be 1 or more, got 0", "set data.batch_size"]),
        (["data.batch_size=1.5"], ["data.batch_size must be an integer, got 1.5"]),
        (["data.train_pairs=0"], ["train_pairs must be 1 or more, got 0"]),
        (["data.draws=some"], ["data.draws must be 'fixed' or 'fresh', got 'some'"]),
        (["data.augment=[flop]"], ["augment takes flip, rotate, swap, grey, got flop"]),
        (["data.augment=flip"], ["data.augment must be a list, got 'flip'"]),
        (["data.val_root=somewhere"], ["val_root needs root"]),
        (["trainer.max_epochs=0"], ["max_epochs must be 1 or more, got 0"]),
        (["trainer.max_epochs=-1"], ["max_epochs must be 1 or more, got -1"]),
        (["trainer.precision=3"], ["trainer", "3"]),
        (["trainer.accelerator=abacus"], ["trainer", "abacus"]),
        (["ema=1.0"], ["ema must be above 0 and below 1, got 1.0; set ema=0.999"]),
        (["ema=1"], ["ema must be above 0 and below 1, got 1"]),
        (["ema=-0.5"], ["ema must be above 0 and below 1, got -0.5"]),
        (["scheduler=rampdown", "scheduler.fraction=0"], ["fraction must be above 0", "set scheduler.fraction=0.3"]),
        (["++model.layers=3", "model=red30"], ["layers even, got 3, 128 and 3", "model.layers=30"]),
        (["++model.layers=1", "model=dncnn"], ["layers 2 or more, got 3, 64 and 1", "model.layers=20"]),
        (["model=nafnet", "model.encoder=[1,1]"], ["encoder and decoder", "[1, 1]", "model.decoder=[1,1,1]"]),
        (["seed=-1"], ["seed must be from 0 to 4294967295, got -1"]),
        (["seed=4294967296"], ["seed must be from 0", "got 4294967296"]),
        (["seed=x"], ["seed must be an integer, got 'x'"]),
        (["data.seed=-1"], ["seed must be 0 or more, got -1"]),
        (["data=ee559"], ["data.root is needed and not set; set data.root=..."]),
        (["data=ee559", "data.root=nowhere"], ["nowhere/train_data.pkl does not exist", "set data.root"]),
        (["data.root=nowhere"], ["nowhere does not exist"]),
        (["data=burst"], ["data.root is needed and not set; set data.root=..."]),
        (["data=pairs", "data.source=a"], ["data.target is needed and not set; set data.target=..."]),
        (["data=pairs", "data.source=a", "data.target=null"], ["target must be a folder, got null", "data=single"]),
        (["data=pairs", "data.source=a", "data.target=b", "data.val_clean=c"], ["val_clean need val_source"]),
        (["data=pairs", "data.source=a", "data.target=b", "data.val_source=c"], ["data.val_target or data.val_clean"]),
        (
            ["data=burst", "data.root=nowhere"],
            ["nowhere does not exist; give a folder of frames", "one file of several frames"],
        ),
        (["data=burst", "data.root=a", "data.val_fraction=0"], ["val_fraction must be above 0, at most 1, got 0"]),
        (["data=burst", "data.root=a", "data.crop_px=0"], ["crop_px must be 1 or more, got 0"]),
        (["data=burst", "data.root=a", "data.range=0"], ["range must be above 0, got 0", "null to find it"]),
        (["data=burst", "data.root=a", "data.seed=-1"], ["seed must be 0 or more, got -1"]),
        (
            ["data=clean", "data.root=a", "noise.sigma=-1"],
            ["sigma must be 0 or more, or [low, high] of", "got -1; set noise.sigma=25"],
        ),
        (["data=clean", "data.root=a", "noise.sigma=much"], ["noise.sigma must be a number or a list, got 'much'"]),
        (
            ["data=clean", "data.root=a", "noise=poisson", "noise.lam=0"],
            ["lam must be above 0", "got 0; set noise.lam="],
        ),
        (["data=clean", "data.root=a", "noise=pixelate", "noise.cell_px=1"], ["cell_px must be 2 or more, got 1"]),
        (["data=clean", "data.root=a", "noise=none"], ["noise.name must be one of gaussian, brown, ", "got 'None'"]),
        (["data=clean", "data.root=a", "data.val_noise={sigma:-2}"], ["sigma must be 0 or more", "got -2"]),
        (["data=clean", "data.root=a", "data.val_noise={lam:3}"], ["data.val_noise.lam is no setting here"]),
        (
            ["data=clean", "data.root=a", "data.val_noise=3"],
            ["data.val_noise must be strengths", "got 3", "{sigma: 25}"],
        ),
        (["loss=charbonnier", "loss.eps=0"], ["loss.eps must be above 0, got 0"]),
        (["loss=l0", "debug=overfit"], ["loss=l0 ", "set loss=l1"]),
        (["data=clean", "data.root=a", "data.targets=dirty"], ["data.targets must be 'noisy' or 'clean', got 'dirty'"]),
        ([*CHAIN, "noise.steps=[]"], ["noise.steps", "set noise.steps="]),
        ([*CHAIN, "noise.steps=[clip]"], ["noise.steps[0] must be a corruption", "'clip'", "{name: gaussian"]),
        ([*CHAIN, "noise.steps=[{name:clip},{name:txt}]"], ["noise.steps[1].name must be", "did you mean 'text'?"]),
        ([*CHAIN, "noise.steps=[{name:text,sigma:3}]"], ["noise.steps[0].sigma is no setting here", "coverage"]),
        ([*CHAIN, "noise.steps=[{name:clip},{name:pixelate}]"], ["pixelate can only be the first of noise.steps"]),
        (["noise=gaussian"], ["noise=gaussian is only for data=clean", "set noise=none"]),
        (["data=single", "data.root=a", "loss=l0"], ["loss=l0 is not for data=single", "loss=neighbor2neighbor"]),
        (["loss=neighbor2neighbor"], ["loss=neighbor2neighbor is only for data=single; set loss=l2"]),
        (["loss=r2r"], ["loss=r2r is only for data=single; set loss=l2"]),
        ([*SINGLE, "loss=r2r", "loss.sigma=-1"], ["sigma must be 0 or more, got -1", "set loss.sigma=25"]),
        ([*SINGLE, "loss=noise2void", "loss.window_px=4"], ["window_px must be odd", "got 4", "set loss.window_px=5"]),
        ([*SINGLE, "loss=noise2void", "loss.mask=rings"], ["loss.mask must be 'none' or 'rows'", "got 'rings'"]),
        ([*SINGLE, "loss=noise2void", "loss.mask=rows"], ["data.augment must not rotate", "set data.augment=[flip]"]),
        (["init_from=nowhere.ckpt"], ["nowhere.ckpt does not exist"]),
        (["model="], []),
        (["model"], []),
        (["seed=[1"], []),
        (["seed=${nothing}"], []),
    ],
)
def test_a_wrong_setting_is_refused(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: list[str]
):
    monkeypatch.setattr(pl.Trainer, "fit", None)  # a setting that slips through must not train for an hour
    assert_refused(command(*arguments), tmp_path, *words)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["train", "val"])
def test_a_limit_that_leaves_no_batch_is_refused(command: Command, course_data: Path, tmp_path: Path, stage: str):
    ended = command("model=convtrans_relu", f"trainer.limit_{stage}_batches=0.01", *tiny_overrides(course_data))
    assert_refused(ended, tmp_path, f"limit_{stage}_batches must leave a batch", "got 0.01 of ", "batches=1 for one")


@pytest.mark.slow
@pytest.mark.parametrize("removed", ["optimizer.lr", "data.batch_size", "trainer.accelerator", "trainer.precision"])
def test_a_setting_that_is_taken_out_has_its_default(command: Command, course_data: Path, removed: str):
    line = [word for word in tiny_overrides(course_data) if not word.startswith(f"{removed}=")]
    ended = command("model=convtrans_relu", "trainer.max_epochs=1", *line, f"~{removed}")
    assert ended.code == 0, ended.err


def test_several_faults_are_listed_at_once(command: Command, tmp_path: Path):
    faults = ["optimizer.lr=-1", "data.batch_size=0", "seed=-3", "+model.depth=2", "trainer.max_epochs=0"]
    words = ["-1", "batch_size must be 1 or more, got 0", "got -3", "model.depth", "max_epochs must be 1 or more"]
    assert_refused(command(*faults), tmp_path, *words)


@pytest.mark.slow
def test_in_a_sweep_each_wrong_run_is_named_and_the_others_train(command: Command, course_data: Path, tmp_path: Path):
    ended = command("-m", "model=convtrans_relu", "debug=fast", "data.batch_size=8,0", *tiny_overrides(course_data)[:2])
    assert ended.code == 2 and "batch_size must be 1 or more, got 0" in ended.err
    assert len(list(tmp_path.glob("outputs/*/*/result.json"))) == 1
    assert [path.name for path in tmp_path.glob("outputs/*/*batch_size=0*")] == []


@pytest.mark.slow
def test_tracebacks_are_there_for_those_who_ask(command: Command, monkeypatch: pytest.MonkeyPatch):
    assert "Traceback" not in command("data.batch_size=0").err

    def with_full_errors() -> int:
        from n2n_lightning import train

        monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
        return train.main()

    ended = command("data.batch_size=0", main=with_full_errors)
    assert ended.code == 2 and "Traceback" in ended.err and "error: data" in ended.err


# Folders of photographs


def test_an_empty_folder_is_refused(command: Command, tmp_path: Path):
    (tmp_path / "given").mkdir()
    assert_refused(command("data.root=given"), tmp_path, "given holds no images", ".png")


PICTURES = [
    *("data.root=given/train", "data.val_root=given/val", "data.train_pairs=6", "data.val_pairs=6"),
    "data.cache_dir=given/cache",
]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Write two good photographs for training, and one for validation beside them; return the former's folder."""
    for number, name in enumerate(("train/0.png", "train/1.png", "val/2.png")):
        write_photograph(tmp_path / "given" / name, seed=number)
    return tmp_path / "given" / "train"


def test_an_unreadable_picture_is_named(command: Command, pictures: Path, tmp_path: Path):
    (pictures / "broken.jpg").write_bytes(b"\xff\xd8 no jpeg")
    assert_refused(command(*PICTURES), tmp_path, "broken.jpg cannot be read", "remove it")


def test_a_truncated_picture_is_named(command: Command, pictures: Path, tmp_path: Path):
    cut = pictures / "1.png"
    cut.write_bytes(cut.read_bytes()[:3000])
    assert_refused(command(*PICTURES), tmp_path, "1.png cannot be read")


def test_a_picture_that_is_too_small_is_named(command: Command, pictures: Path, tmp_path: Path):
    Image.new("RGB", (500, 159)).save(pictures / "small.png")
    assert_refused(command(*PICTURES), tmp_path, "small.png is 500x159 px", "160 px")


def test_a_copy_of_a_validation_photograph_is_named(command: Command, pictures: Path, tmp_path: Path):
    (pictures / "another name.png").write_bytes((tmp_path / "given/val/2.png").read_bytes())
    assert_refused(command(*PICTURES), tmp_path, "2.png is among the training photographs too")


# Checkpoints


@pytest.mark.slow
@pytest.mark.parametrize("content", [{"state_dict": {}}, {"weights": torch.zeros(2)}, [1, 2]])
def test_a_foreign_checkpoint_is_refused(command: Command, course_data: Path, tmp_path: Path, content: object):
    (tmp_path / "given").mkdir()
    torch.save(content, tmp_path / "given" / "foreign.ckpt")
    words = ["foreign.ckpt is not a checkpoint of n2n_lightning"]
    data = tiny_overrides(course_data)[:2]
    assert_refused(command("init_from=given/foreign.ckpt", *data), tmp_path, *words)
    assert_refused(command("checkpoint=given/foreign.ckpt", *data, main=evaluate_main), tmp_path, *words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["checkpoint is needed and not set; set checkpoint=..."]),
        (["checkpoint=nowhere.ckpt"], ["nowhere.ckpt does not exist"]),
        (["checkpoint=x.ckpt", "data=photo"], ["did you mean 'photos'?"]),
        (["checkpoint=x.ckpt", "data=ee559"], ["data.root is needed and not set"]),
        (["checkpoint=x.ckpt", "data.val_batch_size=0"], ["val_batch_size must be 1 or more, got 0"]),
        (["checkpint=x.ckpt"], ["'checkpint' is no setting", "did you mean 'checkpoint'?"]),
    ],
)
def test_evaluate_refuses_what_is_wrong(command: Command, tmp_path: Path, arguments: list[str], words: list[str]):
    assert_refused(command(*arguments, main=evaluate_main), tmp_path, *words)


def test_evaluate_refuses_images_of_other_channels(command: Command, course_data: Path, tmp_path: Path):
    grey = write_course_data(tmp_path / "given" / "grey", train=4, val=4, channels=1)
    run = train_in(tmp_path / "given" / "run", course_data, "model=convtrans_relu", "debug=fast")
    ended = command(
        f"checkpoint={run / 'checkpoints/best.ckpt'}", "data=ee559", f"data.root={grey}", main=evaluate_main
    )
    assert_refused(ended, tmp_path, "images of 3 channels, the data has 1")


@pytest.mark.skipif(GENERAL not in find_trained(), reason="weights/general is not installed")
def test_evaluate_scores_grey_images_by_a_net_that_has_learnt_them(command: Command, tmp_path: Path):
    rng = np.random.default_rng(0)
    clean = smooth_images(1, 64, seed=1, channels=1)[0, 0].round().astype(np.uint8)
    noisy = np.clip(clean + rng.normal(0, 25, clean.shape), 0, 255).round().astype(np.uint8)
    for name, image in (("noisy", noisy), ("clean", clean)):
        Image.fromarray(image).save(tmp_path / f"{name}.png")
    line = ("checkpoint=general", "data=pairs", "data.source=noisy.png", "data.target=null", "data.clean=clean.png")
    ended = command(*line, "data.val_fraction=1", "data.crop_px=null", "output=scores.json", main=evaluate_main)
    assert ended.code == 0 and "grey" in ended.out
    denoised = Denoiser.load("general").denoise(noisy / np.float32(255), range=1)
    expected = peak_signal_noise_ratio(clean / 255, denoised.clip(0, 1), data_range=1)
    assert read_json(tmp_path / "scores.json")["val/psnr"] == pytest.approx(expected, abs=1e-3)
