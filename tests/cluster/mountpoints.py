"""Folders of the host that the nodes mount theirs over.

The nodes see the host's root filesystem, so a place to mount something at has to be there. Those
that are made for that are noted before they are made, and removed with the cluster.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from tests.cluster.errors import ClusterError


def ensure_mount_points(state: Path, paths: Iterable[str]) -> None:
    """Makes the folders that are missing, with those above them.

    Args:
        state: The cluster's folder of state, where they are noted.
        paths: The folders.
    """
    made = made_mount_points(state)
    missing = [
        str(folder)
        for path in map(Path, paths)
        for folder in (*reversed(path.parents), path)
        if not folder.is_dir() and str(folder) not in made
    ]
    noted = list(dict.fromkeys([*made, *missing]))
    unfinished = _note(state).with_suffix(".new")
    unfinished.write_text(json.dumps(noted), encoding="utf-8")
    unfinished.replace(_note(state))
    for folder in noted:
        Path(folder).mkdir(exist_ok=True)


def made_mount_points(state: Path) -> list[str]:
    """The folders that were made for the cluster, those above before those below."""
    try:
        noted = json.loads(_note(state).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise ClusterError(f"{_note(state)} is damaged: {error}") from error
    return [str(folder) for folder in noted]


def remove_mount_points(state: Path) -> list[str]:
    """Removes the folders that were made; returns those that somebody has put something into."""
    kept = []
    for folder in reversed(made_mount_points(state)):
        path = Path(folder)
        if not path.is_dir():
            continue
        if any(path.iterdir()):
            kept.append(folder)
        else:
            path.rmdir()
    return kept


def _note(state: Path) -> Path:
    return state / "mount-points.json"
