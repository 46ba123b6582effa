"""The likely mistakes on a command line: each is answered with the setting, the choice or the line that is meant."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from conftest import Command
from small_runs import assert_refused

from n2n_lightning import predict, report
from n2n_lightning.system import hydra_app
from n2n_lightning.system.folders import suggest_path
from n2n_lightning.system.synonyms import SYNONYMS, nearest, plain

MISTAKES = [  # what is typed in a shell, and what the message must say
    # settings without their group, or under the name that other programs give them
    ("lr=0.1", "'optimizer.lr'"),
    ("learning_rate=0.1", "'optimizer.lr'"),
    ("optimizer.learning_rate=0.1", "'optimizer.lr'"),
    ("optim.lr=0.1", "'optimizer.lr'"),
    ("epochs=5", "'trainer.max_epochs'"),
    ("max_epochs=5", "'trainer.max_epochs'"),
    ("trainer.epochs=5", "'trainer.max_epochs'"),
    ("batch_size=8", "'data.batch_size'"),
    ("data.batchsize=8", "'data.batch_size'"),
    ("workers=4", "'data.num_workers'"),
    ("gpus=1", "'trainer.devices'"),
    ("trainer.gpus=1", "'trainer.devices'"),
    ("device=cuda", "'trainer.accelerator'"),
    ("precision=16", "'trainer.precision'"),
    ("optimizer.momentum=0.9", "optimizer=sgd"),
    ("scheduler.step_size=5", "scheduler=step"),
    ("model.width=32", "model=nafnet"),
    ("data.path=photos", "'data.root'"),
    ("dataset=photos", "'data'"),
    ("arch=unet", "'model'"),
    ("model.name=unet", "'model'"),
    ("opt=adam", "'optimizer'"),
    ("+loss=l1", "type loss=l1"),
    ("++optimizer=sgd", "type optimizer=sgd"),
    ("lr_scheduler=cosine", "'scheduler'"),
    ("loss_fn=l1", "'loss'"),
    ("patch_size=64 data=burst data.root=given", "'data.crop_px'"),
    ("data.patch_size=64", "'data.crop_px'"),
    ("early_stopping=5", "'patience'"),
    ("ckpt_path=best.ckpt", "'init_from'"),
    ("name=first", "'study'"),
    ("max_time=5", "'minutes'"),
    ("clip_grad=1", "'trainer.gradient_clip_val'"),
    ("optimiser=adam", "'optimizer'"),
    ("scheduler.gama=0.5", "'scheduler.gamma'"),
    ("noise.std=25", "'noise.sigma'"),
    ("trainer.accumulate_grad_batches=2", "+trainer.accumulate_grad_batches=2"),
    # choices under other names
    ("loss=mse", "'l2'"),
    ("loss=l2loss", "'l2'"),
    ("loss=mae", "'l1'"),
    ("loss=huber", "'charbonnier'"),
    ("optimizer=Adam", "'adam'"),
    ("optimizer=momentum", "'sgd'"),
    ("scheduler=cosineannealing", "'cosine'"),
    ("scheduler=reduce_on_plateau", "'plateau'"),
    ("model=UNet", "'unet'"),
    ("model=Unet", "'unet'"),
    ("model=u-net", "'unet'"),
    ("data=frames", "'burst'"),
    ("data=n2v", "'single'"),
    ("noise=awgn", "'gaussian'"),
    ("debug=test", "'fast'"),
    ("experiment=gaussian", "'paper/gaussian'"),
    ("hydra/launcher=slurm -m", "'slurm_gpu'"),
    ("hydra/launcher=joblid -m", "'joblib'"),
    # the form of the line
    ("unet", "model=unet"),
    ("model unet", "model=unet"),
    ("model = unet", "model=unet"),
    ("model= unet", "model=unet"),
    ("model =unet", "model=unet"),
    ("model:unet", "model=unet"),
    ("--model unet", "model=unet"),
    ("--model=unet", "model=unet"),
    ("--epochs 5", "trainer.max_epochs=5"),
    ("epochs 5", "trainer.max_epochs=5"),
    ("--mutlirun model=unet,nn_relu", "'--multirun'"),
    ("-m model=unet, nn_relu", "type model=unet,nn_relu\n"),
    ("-m model=unet , nn_relu seed=1", "type model=unet,nn_relu\n"),
    ("model=unet,nn_relu", "-m model=unet,nn_relu"),
    ("optimizer.lr=0,1", "optimizer.lr=0.1"),
    ("optimizer.betas=0.9,0.99", "'optimizer.betas=[0.9,0.99]'"),
    ("seed=1=2", "'seed=\"1=2\"'"),
    ("given", "data.root=given"),
    ("model=unet model.depth=9", "'model.depth' needs model=n2v2"),
    # values
    ("data.root=given/a.png", "given/a.png is a file; give a folder of photographs: given"),
    ("data.root=givn", "'given'"),
    ("noise=gaussian", "set noise=none, or data=clean"),
    ("init_from=genral", "'general'"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("line", "said"), MISTAKES)
def test_a_likely_mistake_is_answered_with_what_is_meant(line: str, said: str, command: Command, tmp_path: Path):
    """``line`` is what is typed behind ``python -m n2n_lightning.train``."""
    (tmp_path / "given").mkdir()
    (tmp_path / "given/a.png").touch()
    assert_refused(command(*shlex.split(line)), tmp_path, said)


@pytest.mark.parametrize("options", [["-m"], ["--cfg", "job", "--multirun"], ["--config-dir", "given"]])
def test_options_may_stand_anywhere(options: list[str]):
    words = ["model=unet", *options, "seed=0,1", "~scheduler"]
    assert hydra_app.prepare_words(words, "train") == [*options, "model=unet", "seed=0,1", "~scheduler"]


def test_a_key_that_a_class_may_take_is_shown_with_its_plus(command: Command, tmp_path: Path):
    ended = command("trainer.enable_something=2")
    assert_refused(ended, tmp_path, "type +trainer.enable_something=2 to add it")
    assert "did you mean" not in ended.err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("a.png --output out", "required: INPUT; usage: python -m n2n_lightning.predict CHECKPOINT INPUT... --output"),
        ("genral a.png --output out", "genral does not exist; did you mean 'general'?"),
        ("general given/a.pgn --output out", "given/a.pgn does not exist; did you mean 'given/a.png'?"),
        ("general a.png -o out", "-o is no option; did you mean '--output'?"),
        ("general a.png --outpt out", "--outpt is no option; did you mean '--output'?"),
        ("general a.png --output out --devise cuda", "--devise is no option; did you mean '--device'?"),
        ("--checkpoint general a.png --output out", "--checkpoint is no option; type CHECKPOINT without it"),
        ("general --input a.png --output out", "--input is no option; type INPUT... without it"),
    ],
)
def test_mistakes_with_the_options_of_a_command(line: str, said: str, command: Command, tmp_path: Path):
    (tmp_path / "given").mkdir()
    (tmp_path / "given/a.png").touch()
    assert_refused(command(*shlex.split(line), main=predict.main), tmp_path, said)


def test_a_folder_that_does_not_exist_has_a_near_one(command: Command, tmp_path: Path):
    (tmp_path / "given/photographs").mkdir(parents=True)
    assert suggest_path(tmp_path / "givn" / "x") == f"; did you mean '{tmp_path / 'given' / 'x'}'?"
    assert suggest_path(tmp_path / "given/photogaphs") == f"; did you mean '{tmp_path / 'given' / 'photographs'}'?"
    assert suggest_path(tmp_path / "other") == suggest_path(tmp_path / "given") == ""
    assert_refused(command("givn", main=report.main), tmp_path, "got givn; did you mean 'given'?")


def test_every_synonym_leads_to_a_setting_choice_or_option():
    """A word in the table that nothing has would be of no use; plugins need no entry."""
    names = hydra_app.known_names("train")
    settings = [*names.groups, *names.settings(), *names.other_settings(), *hydra_app.known_keys("evaluate")]
    choices = [choice for group in names.groups for choice in names.choices(group)]
    known = {name.rpartition(".")[2] for name in [*settings, *choices]}
    options = {"multirun", "per_channel", "accumulate_grad_batches"}
    assert set(SYNONYMS) <= known | options
    assert all(plain(word) == word for words in SYNONYMS.values() for word in words.split())


def test_the_nearest_name_of_any_list():
    """Plugins and other packages bring names of their own."""
    assert nearest("MyNet", ["unet", "my_net"]) == "my_net"
    assert nearest("my_nett", ["unet", "my_net"]) == "my_net"
    assert nearest("lr", ["a.lr", "b.c.lr"]) == "a.lr"
    assert nearest("b.c.learning_rate", ["a.lr", "b.c.lr"]) == "b.c.lr"
    assert nearest("xyz", ["unet", "my_net"]) is None
