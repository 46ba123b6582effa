"""The group ``trainer``: what works, and what is refused with what does the same."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import pytorch_lightning as pl
from small_runs import ROOT, compose_settings, read_json, read_table, train_in

from n2n_lightning.training.trainer_settings import FIXED, trainer_faults

SHORT = ("model=convtrans_relu", "trainer.max_epochs=2")
REFUSED = {  # argument -> a value, and what does the same
    "barebones": ("true", "leave it out"),
    "callbacks": ("[]", "callbacks=[{name: NAME}]"),
    "check_val_every_n_epoch": ("2", "trainer.limit_val_batches=10"),
    "default_root_dir": ("here", "hydra.run.dir=FOLDER"),
    "enable_autolog_hparams": ("true", "leave it out"),
    "enable_checkpointing": ("false", "save_minutes=5"),
    "fast_dev_run": ("true", "debug=fast"),
    "logger": ("false", "logger=wandb"),
    "max_steps": ("100", "trainer.max_epochs=E trainer.limit_train_batches=N"),
    "num_sanity_val_steps": ("2", "debug=fast"),
    "overfit_batches": ("1", "debug=overfit"),
    "plugins": ("[a]", "trainer.precision=bf16-mixed"),
    "reload_dataloaders_every_n_epochs": ("1", "leave it out"),
    "strategy": ("fsdp", "trainer=ddp"),
    "val_check_interval": ("0.5", "trainer.limit_train_batches=N"),
}


@pytest.mark.parametrize("name", sorted(FIXED))
def test_a_refused_argument_says_what_does_the_same(name: str):
    value, fix = REFUSED[name]
    (fault,) = trainer_faults(compose_settings(f"++trainer.{name}={value}").trainer)
    got = '["a"]' if name == "plugins" else value
    assert f"trainer: {name} must be " in fault and f", got {got};" in fault
    assert fix in fault


@pytest.mark.parametrize("name", sorted(FIXED))
def test_every_refused_argument_is_in_the_docs(name: str):
    assert f"| `{name}` |" in (ROOT / "docs" / "running.md").read_text()


def test_values_that_mean_what_every_run_does_are_taken():
    values = {
        **{"max_steps": -1, "fast_dev_run": "false", "check_val_every_n_epoch": 1, "val_check_interval": 1.0},
        **{"num_sanity_val_steps": 0, "enable_checkpointing": "true", "logger": "true", "strategy": "auto"},
        **{"default_root_dir": "null", "overfit_batches": 0.0, "reload_dataloaders_every_n_epochs": 0},
    }
    settings = compose_settings(*[f"++trainer.{key}={value}" for key, value in values.items()])
    assert trainer_faults(settings.trainer) == []


def test_all_faults_are_listed_and_similar_names_suggested():
    settings = compose_settings("++trainer.max_steps=5", "++trainer.max_epoch=3", "++trainer.devices=2")
    faults = trainer_faults(settings.trainer)
    assert len(faults) == 3 and any("did you mean 'max_epochs'?" in fault for fault in faults)


def test_every_argument_that_is_fixed_is_one_of_the_trainers():
    assert set(FIXED) <= set(inspect.signature(pl.Trainer).parameters)


@pytest.mark.parametrize(
    ("options", "epochs"), [((), 2), (("+trainer.min_epochs=3",), 3), (("+trainer.min_steps=30",), 3)]
)
def test_a_run_of_patience_lasts_as_long_as_its_minimum(
    tmp_path: Path, course_data: Path, options: tuple[str, ...], epochs: int
):
    still = ("model=convtrans_relu", "trainer.max_epochs=5", "patience=1", "optimizer.lr=1e-30")
    assert len(read_table(train_in(tmp_path / "run", course_data, *still, *options))) == epochs


def test_max_time_ends_the_run_after_a_validation(tmp_path: Path, course_data: Path):
    options = ("model=convtrans_relu", "trainer.max_epochs=5000", "+trainer.max_time={seconds:1}")
    folder = train_in(tmp_path / "run", course_data, *options)
    result = read_json(folder / "result.json")
    assert result["status"] in ("done", "dead") and 1 <= result["epochs"] < 5000
    assert len(read_table(folder)) == result["epochs"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ("+trainer.detect_anomaly=true", "+trainer.log_every_n_steps=1", "+trainer.inference_mode=false"),
        ("+trainer.gradient_clip_algorithm=value", "trainer.gradient_clip_val=0.1", "+trainer.benchmark=false"),
        ("+trainer.enable_progress_bar=true", "+trainer.enable_model_summary=true", "+trainer.profiler=simple"),
    ],
)
def test_other_arguments_work(tmp_path: Path, course_data: Path, options: tuple[str, ...]):
    folder = train_in(tmp_path / "run", course_data, *SHORT, *options)
    assert read_json(folder / "result.json")["status"] == "done" and len(read_table(folder)) == 2
