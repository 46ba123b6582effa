"""Check the packages of ``requirements.lock`` for known vulnerabilities: ``make audit``.

It installs pip-audit into ``build/audit`` if needed. The exit code is 1 if there are vulnerabilities. It is 0 if there
are none, or if no service could be reached, with a message.
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
SERVICES = ("pypi", "osv")  # the second one if the first one cannot be reached
SECONDS = 300


def main() -> int:
    installed = install()
    packages: list[dict[str, Any]] = []
    for service in SERVICES if installed else ():
        packages = [
            package for package in ask(service) if "skip_reason" not in package
        ]  # skipped: unknown to the service
        if packages:
            break
    if not packages:
        print("could not be checked: offline")
        return 0
    found = [(package, fault) for package in packages for fault in package["vulns"]]
    for package, fault in found:
        fixed = ", ".join(fault["fix_versions"]) or "no version yet"
        print(f"{package['name']} {package['version']}: {fault['id']}, fixed in {fixed}")
    locked = sum("==" in line for line in LOCK.read_text().splitlines() if not line.startswith("#"))
    print(
        f"{len(found)} known vulnerabilities in {len(packages)} packages; {locked - len(packages)} could not be checked"
    )
    return 1 if found else 0


def install() -> bool:
    """Install pip-audit if needed; return whether it is there."""
    python = HOME / "bin" / "python"
    if not python.exists():
        venv.create(HOME, with_pip=True)
    return run([str(python), "-m", "pip", "install", "-q", PIP_AUDIT]) is not None


def ask(service: str) -> list[dict[str, Any]]:
    """Ask a service about every package; return its answers, or nothing if it did not answer."""
    command = [str(HOME / "bin" / "python"), "-m", "pip_audit", "-r", str(LOCK), "--require-hashes", "--disable-pip"]
    answer = run([*command, "--vulnerability-service", service, "--format", "json"], found=1)
    try:
        return list(json.loads(answer or "")["dependencies"])
    except ValueError:
        return []


def run(command: list[str], found: int = 0) -> str | None:
    """Return a command's standard output, or None if it hung or its exit code is neither 0 nor ``found``."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return None
    return done.stdout if done.returncode in (0, found) else None


if __name__ == "__main__":
    sys.exit(main())
