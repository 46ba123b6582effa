"""Look the packages of ``requirements.lock`` up among the known vulnerabilities: ``make audit``.

pip-audit is installed into ``build/audit`` on demand. Exit code 1 when something was found; 0 when nothing was, or when
nothing could be asked, which is said.
"""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

LOCK = Path("requirements.lock")
HOME = Path("build/audit")
PIP_AUDIT = "pip-audit==2.10.1"
SERVICES = ("pypi", "osv")  # the second where the first cannot be asked
SECONDS = 300


def main() -> int:
    installed = install()
    packages: list[dict[str, Any]] = []
    for service in SERVICES if installed else ():
        packages = [package for package in ask(service) if "skip_reason" not in package]  # skipped: not known there
        if packages:
            break
    if not packages:
        print("could not be checked: offline")
        return 0
    found = [(package, fault) for package in packages for fault in package["vulns"]]
    for package, fault in found:
        mend = ", ".join(fault["fix_versions"]) or "no version yet"
        print(f"{package['name']} {package['version']}: {fault['id']}, mended in {mend}")
    asked = sum("==" in line for line in LOCK.read_text().splitlines() if not line.startswith("#"))
    print(
        f"{len(found)} known vulnerabilities in {len(packages)} packages; {asked - len(packages)} could not be checked"
    )
    return 1 if found else 0


def install() -> bool:
    """Whether pip-audit is there, or could be installed."""
    python = HOME / "bin" / "python"
    if not python.exists():
        venv.create(HOME, with_pip=True)
    return run([str(python), "-m", "pip", "install", "-q", PIP_AUDIT]) is not None


def ask(service: str) -> list[dict[str, Any]]:
    """What a service says of every package; empty when it did not answer."""
    command = [str(HOME / "bin" / "python"), "-m", "pip_audit", "-r", str(LOCK), "--require-hashes", "--disable-pip"]
    answer = run([*command, "--vulnerability-service", service, "--format", "json"], found=1)
    try:
        return list(json.loads(answer or "")["dependencies"])
    except ValueError:
        return []


def run(command: list[str], found: int = 0) -> str | None:
    """Standard output; None when the command failed or hung. It may exit with ``found`` too."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return None
    return done.stdout if done.returncode in (0, found) else None


if __name__ == "__main__":
    sys.exit(main())
