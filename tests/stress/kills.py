"""Kill -9 a run at named and at random moments: the resumed run must end like one that was never interrupted."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import user_callbacks  # noqa: F401  # adds its callbacks to those that can be chosen
from small_runs import read_json, tiny_overrides, write_course_data

from stress.child import Trap, named_moments, only_run, run_train, train_to_end, within_training
from stress.compare import differences
from stress.figures import Figure

RECIPES = {
    "adam": (
        *("model=convtrans_relu", "optimizer=adam", "scheduler=cosine", "ema=0.9", "loss=charbonnier"),
        *("data.augment=[flip,rotate,swap]", "trainer.max_epochs=4", "save_steps=5"),
    ),
    "sgd": (
        *("model=nn_relu", "scheduler=plateau", "++scheduler.patience=0", "loss=l0", "patience=1"),
        *("data.num_workers=1", "data.augment=[swap]", "trainer.max_epochs=5", "save_steps=4"),
    ),
    "callback": (
        *("model=convtrans_relu", "callbacks=[{name:RateFromHistory},{name:EarlyStopping,monitor:val/loss}]"),
        *("trainer.max_epochs=4", "save_steps=5"),
    ),
}


def run(scratch: Path, *, quick: bool, seed: int = 0) -> list[Figure]:
    """Kill runs at ten named and forty random moments; quick: at three and one."""
    root = write_course_data(scratch / "data")
    names = list(named_moments().items())
    rng = random.Random(seed)
    cases: list[tuple[str, str, Trap]] = [("adam", name, trap) for name, trap in (names[1:8:3] if quick else names)]
    named = len(cases)
    whole = {recipe: uninterrupted(scratch, recipe, root) for recipe in (list(RECIPES)[:1] if quick else RECIPES)}
    for number in range(1 if quick else 40):
        recipe = rng.choice(list(whole))
        part = rng.uniform(0, 0.9)  # less than 1, so that a run that is a little faster than the first is still killed
        trap = within_training(part * whole[recipe][1])
        cases.append((recipe, f"random moment {number + 1}, after {part:.3f} of {recipe}", trap))
    bad: list[str] = []
    kills = 0
    for number, (recipe, name, trap) in enumerate(cases):
        found, killed = one_case(scratch, recipe, root, trap, whole[recipe][0])
        found += ["was not killed"] if not killed and number < named else []  # at random, a run may end before
        kills += killed
        end = f"{len(found)} differences, {', '.join(found[:3])}" if found else "identical"
        print(f"kill -9, {name}: {end}{'' if killed else ' (it had ended before)'}", flush=True)
        bad += [f"{name}: {found[0]}"] if found else []
    measured = f"{len(cases) - len(bad)} of {len(cases)} identical, {kills} of them killed before their end"
    return [Figure("kill -9 and the same command again", "all end bit-identical", "; ".join([measured, *bad]), not bad)]


def uninterrupted(scratch: Path, recipe: str, root: Path) -> tuple[Path, float]:
    """Train without a disturbance; return the run's folder, and the seconds that it took."""
    run_folder = train_to_end([*RECIPES[recipe], *tiny_overrides(root)], scratch / f"whole_{recipe}")
    return run_folder, float(read_json(run_folder / "result.json")["seconds"])


def one_case(scratch: Path, recipe: str, root: Path, trap: Trap, whole: Path) -> tuple[list[str], bool]:
    """Kill a run and give the same command again; return what differs, and whether the kill came before the end."""
    folder = scratch / "case"
    folder.mkdir()
    line = [*RECIPES[recipe], *tiny_overrides(root)]
    try:
        first = run_train(line, folder, trap)
        again = run_train(line, folder)
        if again.code != 0:
            return [f"exit code {again.code}: {again.output.strip().splitlines()[-1:]}"], first.code == -9
        return differences(whole, only_run(folder)), first.code == -9
    finally:
        shutil.rmtree(folder)
