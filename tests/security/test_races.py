"""Tenants who swap what is in their volumes while the driver works on these.

Files become links, devices, fifos, mount points and nested subvolumes between a look and a touch,
while the volume is measured, snapshotted, cloned, grown, unmounted and deleted. Nothing beside it
is read, written or removed, no fifo or device of the tenant is opened, and all is free in the end.
"""

from pathlib import Path

import pytest

from tests.security import scale
from tests.security.sandbox import run_confined

pytestmark = pytest.mark.kernel

ROUNDS_SAMPLED, ROUNDS_WHOLE = 1, 60


def test_a_hostile_tenant_reaches_nothing(tmp_path: Path) -> None:
    rounds = scale.choose(ROUNDS_SAMPLED, ROUNDS_WHOLE)
    found = run_confined(
        "tests.security.races", tmp_path / "races", scale.SEED, rounds, timeout_s=60 + 60 * rounds
    )

    scale.FIGURES["calls on volumes of hostile tenants"] += sum(found["calls"].values())
    scale.FIGURES["of them that reached beyond the volume"] += len(found["wrong"])
    assert found["wrong"] == []
    assert found["calls"]["DeleteVolume"] >= 5 * rounds
