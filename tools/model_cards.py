"""Write the model cards: ``README.md`` beside each file of trained weights, from the record of its training.

    python tools/model_cards.py      # in the project's folder

What stands below a card's first ``## `` heading is written by hand, and stays.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from n2n_lightning.models.trained import TrainedWeights, list_trained

EXPERIMENTS = Path("conf/experiment")
PHOTOGRAPHS = {  # terms of the images by the folder's first part
    "fmd_test": "The images of FMD (Zhang et al. 2019, DOI 10.7274/r0-ed2r-4052) are not included. Cite it.",
    "BSDS500": "The photographs of BSDS500 (Arbelaez et al. 2011) are not included. Their authors ask to be cited.",
}
CARD = """\
# {name}

| | |
| --- | --- |
| name | `{name}` |
| net | `{net}`, {params:,} parameters |
| noise | {noise} |
| range | {range} |
| grey images | {grey} |
| trained on | {trained_on}, {epochs} epochs, {targets} targets |
| validation PSNR | {psnr} dB, noisy images {noisy_psnr} dB{scored_at} |
| size | {size} |
| licence of the weights | {licence} |

Trained, with this PSNR at the best epoch, by

    {train}

Used by

    python -m n2n_lightning.predict {name} IMAGES --output FOLDER
"""


def main() -> int:
    for weights in list_trained():
        path = weights.checkpoint.with_name("README.md")
        _, heading, kept = path.read_text().partition("\n## ") if path.exists() else ("", "", "")
        path.write_text(card(weights) + heading + kept)
        print(path)
    return 0


def card(weights: TrainedWeights) -> str:
    """Return the part of a card that the record tells."""
    record = weights.record
    text = CARD.format(
        name=weights.name,
        net=record["model"],
        params=record["params"],
        noise=weights.noise,
        range=weights.range,
        grey=grey_text(weights),
        trained_on=weights.trained_on,
        epochs=record["epochs"],
        targets=weights.data.get("targets", "noisy"),
        psnr=weights.psnr,
        noisy_psnr=weights.noisy_psnr,
        scored_at=f", at {weights.scored_at}" if weights.scored_at else "",
        size=weights.size,
        licence=weights.licence,
        train=wrapped(train_command(weights)),
    )
    terms = next((text for start, text in PHOTOGRAPHS.items() if weights.trained_on.startswith(start)), None)
    return f"{text}\n{terms}\n" if terms else text


def grey_text(weights: TrainedWeights) -> str:
    """Return what becomes of grey images."""
    if weights.record["image_shape"][0] == 1:
        return "only these; others channel by channel, with `--per-channel`"
    return "learnt too" if "grey" in weights.data["augment"] else "channel by channel, with `--per-channel`"


def train_command(weights: TrainedWeights) -> list[str]:
    """Return the words of the command that trained the weights."""
    names = (weights.key, weights.key.rpartition("/")[0], weights.record["config"]["study"])
    experiment = next((name for name in names if name and (EXPERIMENTS / f"{name}.yaml").is_file()), None)
    words = ["python -m n2n_lightning.train"]
    words += [f"experiment={experiment}"] if experiment else []
    words += ["size=small"] if weights.key.startswith("paper/") else []
    words += [f"model={weights.record['model']}"]
    return words + [f"{key}={str(value).strip(chr(39))}" for key, value in weights.record["overrides"].items()]


def wrapped(words: list[str], width: int = 110) -> str:
    """Join the words of a command, on several lines if they are too long for one."""
    lines = [words[0]]
    for word in words[1:]:
        if len(lines[-1]) + len(word) < width:
            lines[-1] += f" {word}"
        else:
            lines[-1] += " \\"
            lines.append(f"        {word}")
    return re.sub(r" +$", "", "\n".join(lines), flags=re.MULTILINE)


if __name__ == "__main__":
    sys.exit(main())
