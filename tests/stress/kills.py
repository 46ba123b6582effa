"""Kill -9 at named and at random moments: the run that goes on must end as one that was never interrupted."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

from stress.child import Strike, named_moments, run_train, within_training
from stress.compare import differences
from stress.figures import Figure
from stress.tiny_data import overrides, write_course_data

RECIPES = {
    "adam": (
        *("model=convtrans_relu", "optimizer=adam", "scheduler=cosine", "ema=0.9", "loss=charbonnier"),
        *("data.augment=[flip,rotate,swap]", "trainer.max_epochs=4", "save_steps=5"),
    ),
    "sgd": (
        *("model=nn_relu", "scheduler=plateau", "++scheduler.patience=0", "loss=l0", "patience=1"),
        *("data.num_workers=1", "data.augment=[swap]", "trainer.max_epochs=5", "save_steps=4"),
    ),
}


def run(scratch: Path, *, quick: bool, seed: int = 0) -> list[Figure]:
    """Ten named moments and forty random ones; quick: three and one."""
    root = write_course_data(scratch / "data")
    names = list(named_moments().items())
    rng = random.Random(seed)
    cases: list[tuple[str, str, Strike]] = [("adam", name, strike) for name, strike in names[1:8:3] * quick]
    cases += [("adam", name, strike) for name, strike in names] * (not quick)
    whole = {recipe: uninterrupted(scratch, recipe, root) for recipe in (list(RECIPES)[:1] if quick else RECIPES)}
    for number in range(1 if quick else 40):
        recipe = rng.choice(list(whole))
        part = rng.uniform(0, 0.9)  # a run that is a little faster than the first must be hit all the same
        strike = within_training(part * whole[recipe][1])
        cases.append((recipe, f"random moment {number + 1}, after {part:.3f} of {recipe}", strike))
    bad: list[str] = []
    struck = 0
    for recipe, name, strike in cases:
        found, killed = one_case(scratch, recipe, root, strike, whole[recipe][0])
        struck += killed
        end = f"{len(found)} differences, {', '.join(found[:3])}" if found else "identical"
        print(f"kill -9, {name}: {end}{'' if killed else ' (it had ended before)'}", flush=True)
        bad += [f"{name}: {found[0]}"] if found else []
    measured = f"{len(cases) - len(bad)} of {len(cases)} identical, {struck} of them killed before their end"
    return [Figure("kill -9 and the same command again", "all end bit-identical", "; ".join([measured, *bad]), not bad)]


def uninterrupted(scratch: Path, recipe: str, root: Path) -> tuple[Path, float]:
    """The folder of a run that nothing happens to, and the seconds that it took."""
    folder = scratch / f"whole_{recipe}"
    folder.mkdir()
    ending = run_train([*RECIPES[recipe], *overrides(root)], folder)
    assert ending.code == 0, ending.output
    run_folder = only_run(folder)
    return run_folder, float(json.loads((run_folder / "result.json").read_text())["seconds"])


def one_case(scratch: Path, recipe: str, root: Path, strike: Strike, whole: Path) -> tuple[list[str], bool]:
    """What differs after a kill and the same command again; and whether the kill came before the run's end."""
    folder = scratch / "case"
    folder.mkdir()
    line = [*RECIPES[recipe], *overrides(root)]
    try:
        first = run_train(line, folder, strike)
        again = run_train(line, folder)
        if again.code != 0:
            return [f"exit code {again.code}: {again.output.strip().splitlines()[-1:]}"], first.code == -9
        return differences(whole, only_run(folder)), first.code == -9
    finally:
        shutil.rmtree(folder)


def only_run(folder: Path) -> Path:
    (path,) = folder.glob("outputs/*/*/result.json")
    return path.parent
