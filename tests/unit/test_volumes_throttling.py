"""What is looked at for the limits of volumes after a start."""

import pytest

from csi.linux import loop
from csi.volumes.pools import Pools
from csi.volumes.throttling import Throttling


def test_without_limited_volumes_no_device_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    # The role resizer has no pool, no right to devices, and none of them in its /dev.
    def refuse() -> list[object]:
        raise PermissionError

    monkeypatch.setattr(loop, "bound", refuse)
    Throttling().resume(Pools([]))
