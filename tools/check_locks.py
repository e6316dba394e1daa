"""Holds both lock files against pyproject.toml, without a network and without a resolver.

Three things go wrong when somebody edits one file and forgets another: a requirement is missing
from a lock or pinned outside its range, a requirement that was dropped is still pinned, and the
two locks pin one package differently, so that what is tested is not what is installed.
"""

import re
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;\\]+)")


@dataclass
class Pin:
    """One package of a lock file.

    Attributes:
        version: The version it is pinned to.
        hashes: How many files of it are trusted.
        direct: Whether the project itself asks for it, by the lock file's own notes.
    """

    version: str
    hashes: int = 0
    direct: bool = False


@dataclass
class Lock:
    """A lock file as read."""

    name: str
    pins: dict[str, Pin] = field(default_factory=dict)


def read_lock(path: Path, project: str) -> Lock:
    """Reads the pins, their hashes and who asked for them."""
    lock = Lock(path.name)
    pin: Pin | None = None
    for line in path.read_text(encoding="utf-8").splitlines():
        if match := PIN.match(line):
            pin = Pin(match["version"])
            lock.pins[canonicalize_name(match["name"])] = pin
        elif pin is not None and "--hash=" in line:
            pin.hashes += 1
        elif pin is not None and f"{project} (pyproject.toml" in line:
            pin.direct = True
    return lock


def find_differences(lock: Lock, wanted: list[Requirement]) -> list[str]:
    """Says where a lock file does not hold what pyproject.toml asks for."""
    problems = []
    names = {canonicalize_name(requirement.name) for requirement in wanted}
    for requirement in wanted:
        pin = lock.pins.get(canonicalize_name(requirement.name))
        if pin is None:
            problems.append(f"{lock.name} lacks {requirement}")
        elif not requirement.specifier.contains(pin.version, prereleases=True):
            problems.append(f"{lock.name} pins {pin.version} where {requirement} is asked for")
    for name, pin in lock.pins.items():
        if pin.direct and name not in names:
            problems.append(f"{lock.name} still pins {name}, which pyproject.toml no longer names")
        if not pin.hashes:
            problems.append(f"{lock.name} has no hash for {name}")
    return problems


def main() -> None:
    """Ends with a list of what differs, or quietly."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = pyproject["project"]["name"]
    needed = [Requirement(text) for text in pyproject["project"]["dependencies"]]
    for_work = [Requirement(text) for text in pyproject["dependency-groups"]["dev"]]
    lock = read_lock(ROOT / "requirements.lock", project)
    dev_lock = read_lock(ROOT / "requirements-dev.lock", project)

    problems = find_differences(lock, needed) + find_differences(dev_lock, needed + for_work)
    for name, pin in lock.pins.items():
        other = dev_lock.pins.get(name)
        if other is None or other.version != pin.version:
            found = "nothing" if other is None else other.version
            problems.append(
                f"{dev_lock.name} has {found} for {name}, {lock.name} has {pin.version}"
            )
    if problems:
        sys.exit("\n".join([*problems, "Run: make lock"]))
    sys.stdout.write(
        f"Both lock files hold what pyproject.toml asks for ({len(dev_lock.pins)} pins)\n"
    )


if __name__ == "__main__":
    main()
