"""A note, in an entry under construction, of whose filesystems are frozen for it.

The child that freezes also thaws when the driver dies. Where both die at once, as when a whole
container is killed, the next start finds the note and thaws.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence

from csi.linux.paths import open_beneath
from csi.pool.building import BUILDING

_NAME = "frozen.json"


@contextlib.contextmanager
def frozen_note(folder: int, volume_keys: Sequence[str]) -> Iterator[None]:
    """Keeps the note in the open folder while the block runs.

    It is not synced: a machine that crashes has nothing frozen when it is up again.
    """
    note = os.open(
        _NAME, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600, dir_fd=folder
    )
    try:
        os.write(note, json.dumps(list(volume_keys)).encode())
    finally:
        os.close(note)
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_NAME, dir_fd=folder)


def read_frozen_note(pool_fd: int, unfinished: str) -> list[str]:
    """Returns the keys of the volumes that an unfinished entry may have left frozen."""
    try:
        note = open_beneath(pool_fd, f"{BUILDING}/{unfinished}/{_NAME}", os.O_RDONLY)
    except OSError:
        return []
    try:
        keys = json.loads(os.read(note, 1 << 20))
        return [key for key in keys if isinstance(key, str)] if isinstance(keys, list) else []
    except ValueError:
        return []
    finally:
        os.close(note)
