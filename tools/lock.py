"""Write ``requirements.lock``: the versions of ``constraints.txt`` with the hashes of their files.

    pip install uv            # in an environment of its own
    python tools/lock.py      # in the project's folder; needs the package index

``uv`` resolves the package with all its extras; this script removes the GPU packages and adds the hash of torch's CPU
build, which ``uv`` does not find in the package index.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

TORCH_CPU = (  # hash of torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl; pip takes it for torch==2.13.0
    "6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b"
)
LEFT_OUT = ("cuda-", "nvidia-", "triton")
HEAD = """\
# The tested versions, with the hashes of every file that they may be installed from. `python tools/lock.py` writes this
# file; do not edit it. The versions are those of constraints.txt, for Python 3.11.
#
#   pip install --require-hashes -r requirements.lock
#   pip install --no-deps --no-build-isolation -e .
#
# Two builds of torch are accepted: the registry's, and the CPU build for Linux (2.13.0+cpu, Python 3.11, x86-64).
# nvidia-*, cuda-* and triton are left out: they are gigabytes that only the registry's Linux build of torch needs, and
# nothing here needs them. So Linux needs the CPU build. pip takes it from an index that offers it with its hash, as
# torch's own does. From a folder it must be installed first, because pip prefers links that have a hash:
#
#   pip install --no-deps --no-index --find-links FOLDER torch==2.13.0+cpu
"""


def main() -> int:
    command = ["uv", "pip", "compile", "pyproject.toml", "--extra", "export", "--extra", "dev"]
    command += ["--constraint", "constraints.txt", "--python-version", "3.11", "--upgrade"]
    command += ["--generate-hashes", "--no-header", "--no-annotate", "--quiet"]
    scripts = Path(sys.executable).parent  # uv is here if this interpreter's environment is not activated
    path = os.pathsep.join([str(scripts), os.environ.get("PATH", "")])
    done = subprocess.run(command, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"error: uv could not resolve the set\n{done.stderr}", file=sys.stderr)
        return 1
    blocks = [block for block in re.split(r"\n(?=\w)", done.stdout.strip()) if not block.startswith(LEFT_OUT)]
    text = "\n".join(f"{b} \\\n    --hash=sha256:{TORCH_CPU}" if b.startswith("torch==") else b for b in blocks)
    Path("requirements.lock").write_text(f"{HEAD}{text}\n")
    print(f"requirements.lock: {len(blocks)} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
