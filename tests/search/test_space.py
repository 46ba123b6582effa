"""The search space: Hydra's sweep syntax as Optuna's distributions, and drawn values as overrides."""

from __future__ import annotations

import pytest

pytest.importorskip("optuna", reason="the extra search is not installed")  # before modules that import it

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from n2n_lightning.search.space import read_space
from n2n_lightning.system.errors import InputError


@pytest.mark.parametrize(
    ("values", "distribution"),
    [
        ("interval(0.1,2)", FloatDistribution(0.1, 2)),
        ("tag(log,interval(1e-4,1e-1))", FloatDistribution(1e-4, 1e-1, log=True)),
        ("int(interval(2,9))", IntDistribution(2, 9)),
        ("tag(log,int(interval(2,9)))", IntDistribution(2, 9, log=True)),
        ("range(1,8)", IntDistribution(1, 7)),
        ("range(1,8,3)", IntDistribution(1, 7, step=3)),
        ("range(8,1,-3)", IntDistribution(2, 8, step=3)),
        ("range(0.5,2,0.5)", FloatDistribution(0.5, 1.5, step=0.5)),
        ("choice(a,2,true)", CategoricalDistribution(["a", "2", "True"])),
        ("a,b,a", CategoricalDistribution(["a", "b"])),
        ("[flip],[flip,rotate]", CategoricalDistribution(["[flip]", "[flip,rotate]"])),
    ],
)
def test_each_kind_of_sweep_is_a_distribution(values: str, distribution: object):
    assert read_space([f"key={values}"]).distributions == {"key": distribution}


def test_drawn_values_become_overrides_that_can_be_read():
    words = ["model=unet", "+model.width=8,16", "optimizer.lr=tag(log,interval(1e-4,1))", "study='a b'"]
    space = read_space(words)
    assert list(space.keys) == ["model.width", "optimizer.lr"]
    overrides = space.overrides({"model.width": "8", "optimizer.lr": 0.00123456})
    assert overrides == ["model=unet", "study='a b'", "+model.width=8", "optimizer.lr=0.001235"]


def test_the_later_word_for_a_setting_counts():
    space = read_space(["lr=interval(0,1)", "seed=0", "seed=1,2", "lr=0.1"])
    assert space.fixed == ["lr=0.1"] and list(space.distributions) == ["seed"]


def test_every_choice_and_end_is_in_a_sample():
    samples = read_space(["a=x,y,z", "b=interval(1,2)"]).samples()
    assert samples[0] == {"a": "x", "b": 1.0}
    assert {sample["a"] for sample in samples} == {"x", "y", "z"} and {sample["b"] for sample in samples} == {1.0, 2.0}


def test_what_the_runs_do_not_depend_on_is_not_the_searchs_identity():
    words = ["lr=interval(0,1)", "data.root=here"]
    same = read_space([*reversed(words), "save_minutes=1", "study=other"])
    assert read_space(words).identity() == same.identity()
    assert read_space([*words, "model=unet"]).identity() != same.identity()
    assert read_space(["lr=interval(0,2)", words[1]]).identity() != same.identity()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["optimizer.lr=0.1"], "a setting with several values"),
        (["optimizer.lr=tag(log,interval(0,1))"], r"optimizer\.lr=tag\(log,interval\(0,1\)\) cannot be searched"),
        (["optimizer.lr=interval(2,1)"], r"optimizer\.lr=interval\(2,1\) cannot be searched"),
        (["seed=range(3,3)"], r"seed=range\(3,3\) cannot be searched"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused(words: list[str], said: str):
    with pytest.raises(InputError, match=said):
        read_space(words)
