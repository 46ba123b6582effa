"""Print a script that makes a shell complete n2n: ``python -m n2n_lightning.completion bash|zsh|fish``."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from n2n_lightning.system.arguments import command_summaries, make_parser
from n2n_lightning.system.errors import run_command
from n2n_lightning.system.folders import weights_folder

# Each script hands the words up to the cursor to ``n2n completion --offers``. Without an answer the shell offers files.
# bash also breaks words at "=" and ":", and replaces only what follows the last of them.
SCRIPTS = {
    "bash": r"""
_n2n() {
    local line=${COMP_LINE:0:COMP_POINT} words word
    read -ra words <<< "$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    mapfile -t COMPREPLY < <("${words[0]}" completion --offers "${words[@]:1}" 2>/dev/null)
    word=${words[-1]}
    COMPREPLY=("${COMPREPLY[@]#"${word%"${word##*[=:]}"}"}")
    [[ ${COMPREPLY[0]} == *[=./] ]] && compopt -o nospace
}
complete -o default -o nosort -F _n2n n2n
""",
    "zsh": r"""
_n2n() {
    local -a offers
    offers=("${(@f)$("${words[1]}" completion --offers "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ -z $offers ]]; then
        compset -P '*='
        _files
    else
        compadd -S '' -- ${(M)offers:#*[=./]}
        compadd -- ${offers:#*[=./]}
    fi
}
compdef _n2n n2n
""",
    "fish": r"""
function __n2n
    set -l words (commandline -opc)
    set -l offers ($words[1] completion --offers $words[2..] (commandline -ct) 2>/dev/null)
    if set -q offers[1]
        printf '%s\n' $offers
    else
        complete -C "'' "(commandline -ct)
    end
end
complete -c n2n -f -a '(__n2n)'
""",
}
HOW = """\
To have it in every new shell, add to ~/.bashrc:  eval "$(n2n completion bash)"
to ~/.zshrc, after compinit:                      eval "$(n2n completion zsh)"
to ~/.config/fish/config.fish:                    source (n2n completion fish | psub)
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Print a shell's script, or what may stand in place of the last word of a command line."""
    return run_command(lambda: show(parse(argv)))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser("completion", "Print a script that makes a shell complete n2n.")
    parser.epilog, parser.formatter_class = HOW, argparse.RawDescriptionHelpFormatter
    parser.add_argument("shell", nargs="?", choices=sorted(SCRIPTS), help="the shell that will run the script")
    parser.add_argument("--offers", nargs=argparse.REMAINDER, metavar="WORD", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.shell is None and not arguments.offers:
        parser.error(f"name the shell: {', '.join(sorted(SCRIPTS))}")
    return arguments


def show(arguments: argparse.Namespace) -> None:
    for line in [SCRIPTS[arguments.shell].strip()] if arguments.shell else offers(arguments.offers):
        print(line)


def offers(words: Sequence[str]) -> list[str]:
    """Return what may stand in place of the last word after ``n2n``; nothing where a file may.

    >>> offers(["train", "loss=l"])
    ['loss=l0', 'loss=l1', 'loss=l2']
    """
    *before, word = words
    if not before:
        found = list(command_summaries())
    elif before == ["completion"]:
        found = sorted(SCRIPTS)
    elif before[0] in ("train", "evaluate", "doctor"):
        found = hydra_offers(before[0], before[1:], word)
    else:
        found = weight_names() if before in (["predict"], ["export"]) else []
    return [offer for offer in found if offer.startswith(word)]


def weight_names() -> list[str]:
    """Return the names of the weights, with ``auto``."""
    folder = weights_folder()
    return ["auto", *sorted({Path(path).parent.name for path in folder.rglob("best.ckpt")})]


def hydra_offers(command: str, before: Sequence[str], word: str) -> list[str]:
    """Return keys, groups and their choices for a command that Hydra configures.

    Args:
        command: name of the command and of its file in ``conf/``.
        before: the words between the command and ``word``; the choices among them decide which keys there are.
        word: what was typed of the last word.
    """
    from hydra.core.object_type import ObjectType
    from hydra.errors import HydraException

    from n2n_lightning.system.hydra_app import compose_chosen, flatten, hydra_loader, load_plugins, plugin_words

    def options(group: str, kind: ObjectType) -> list[str]:
        return [name for name in loader.get_group_options(group, kind) if not name.startswith("_")]

    try:
        load_plugins(plugin_words([part for other in before for part in unquoted(other)]))
    except ValueError:  # one cannot be imported; the command will say so
        return []
    key, sign, value = word.partition("=")
    with hydra_loader() as loader:
        folder = f"{key}/{value.rpartition(',')[2]}".rpartition("/")[0]  # "experiment=paper/" goes down a folder
        if sign and (choices := options(folder, ObjectType.CONFIG)):
            choices += [f"{name}/" for name in options(folder, ObjectType.GROUP)]
            typed = word[: max(word.rfind(mark) for mark in "=,/") + 1]
            return [f"{typed}{choice}" for choice in sorted(choices)]
        try:
            settings = flatten(compose_chosen(command, [first_choice(other) for other in before]))
        except HydraException:  # of choices that do not go together; the command will say so
            return []
        if sign:
            return [f"{key}={text}" for text in value_texts(settings.get(key))]
        parent = key[: key.rfind("/") + 1]  # "hydra/launcher"
        groups = [parent + name for name in options(parent.rstrip("/"), ObjectType.GROUP)]
        groups = [group + ("/" if group == "hydra" else "=") for group in groups]
        return sorted({*groups, *next_level(settings, word)})


def unquoted(word: str) -> list[str]:
    """Return a word of the command line without the shell's quotes, in a list; none if a quote is not closed."""
    try:
        return shlex.split(word)
    except ValueError:
        return []


def first_choice(word: str) -> str:
    """Return ``model=unet`` for ``model=unet,dncnn``."""
    return word.partition(",")[0]


def value_texts(value: object) -> list[str]:
    """Return both values of a switch; of another setting the value that it has, if it is not a list."""
    if isinstance(value, bool):
        return ["true", "false"]
    return [] if value is None or isinstance(value, list) or value == "???" else [str(value)]


def next_level(flat: dict[str, Any], word: str) -> set[str]:
    """Return the keys that ``word`` may become, one level deeper than its last dot.

    >>> sorted(next_level({"seed": 0, "optimizer.lr": 0.1, "optimizer.betas.a": 1}, "optimizer."))
    ['optimizer.betas.', 'optimizer.lr=']
    """
    dots = word.count(".")
    parts = [key.split(".") for key in flat]
    return {".".join(part[: dots + 1]) + ("." if len(part) > dots + 1 else "=") for part in parts if len(part) > dots}


if __name__ == "__main__":
    sys.exit(main())
