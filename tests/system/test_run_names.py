"""Names of run folders: short, distinct, and safe as a single folder."""

from __future__ import annotations

import pytest

from n2n_lightning.system.folders import MAX_RUN_NAME, run_name


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ([], "unet"),
        (["model=unet"], "unet"),
        (["model=unet", "study=x", "resume=false", "experiment=demo", "debug=fast"], "unet"),
        (["seed=1", "optimizer=sgd", "model=unet"], "unet,optimizer=sgd,seed=1"),
        (["optimizer=sgd", "seed=1"], "unet,optimizer=sgd,seed=1"),
        (["+model.depth=3", "~scheduler"], "unet,model.depth=3,scheduler="),
        (["data.root=/somewhere/else/photos/"], "unet,data.root=photos"),
        (["data.root='../with space/my photos'"], "unet,data.root=myphotos"),
        (["init_from=outputs/a/b/best.ckpt"], "unet,init_from=best.ckpt"),
        (["data.augment=[flip,swap]"], "unet,data.augment=flip,swap"),
        (["hydra.verbose=true", "seed=1"], "unet,seed=1"),
        (["optimizer.lr=1e-3"], "unet,optimizer.lr=1e-3"),
    ],
)
def test_a_run_is_named_after_its_model_and_its_overrides_sorted(overrides: list[str], name: str):
    assert run_name("unet", overrides) == name


def test_distinct_overrides_have_distinct_names():
    cases = [
        [],
        ["seed=1"],
        ["seed=11"],
        ["optimizer=sgd"],
        ["optimizer.lr=0.1"],
        ["optimizer.lr=-0.1"],
        ["optimizer.lr=1e1"],
        ["optimizer.lr=1e-1"],
        ["data.augment=[flip]"],
        ["data.augment=[flip,swap]"],
        ["data.augment=[]"],
        ["trainer.precision=16-mixed"],
        ["trainer.precision=bf16-mixed"],
    ]
    assert len({run_name("unet", case) for case in cases}) == len(cases)


def test_a_long_name_is_cut_and_stays_distinct():
    long = [[f"data.root={'x' * 300}{end}"] for end in "ab"]
    names = {run_name("unet", case) for case in long}
    assert len(names) == 2
    assert all(len(name) <= MAX_RUN_NAME + 10 < 255 and name.startswith("unet,data.root=x") for name in names)


def test_a_name_is_a_single_folder():
    name = run_name("unet", ["data.root=../a/b", "init_from=C:\\x\\..", "key=/", "other=.."])
    assert "/" not in name and "\\" not in name and name not in (".", "..")
