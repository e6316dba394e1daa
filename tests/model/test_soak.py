"""Thirty-two callers at once for minutes, the driver killed at random: nothing lost, nothing left.

`SOAK_SECONDS` says for how long, three quarters of it with kills and one without. What is looked
at is what tests/model/test_model.py looks at too, for each caller by a model of its own; and that
memory, descriptors and threads do not grow while the driver is let be.
"""

import os

import pytest

from tests.crash.sweep import SEED, WHOLE
from tests.model import figures
from tests.model.gauges import halves, in_words
from tests.model.ground import Ground
from tests.model.soak import Soak

pytestmark = pytest.mark.kernel

CALLERS = 32
SECONDS = float(os.environ.get("SOAK_SECONDS", "600" if WHOLE else "8"))
_LONG_S = 120.0
"""From so long on memory is judged: before that it has not settled."""
_GROWTH = 1.1
_SPARE_DESCRIPTORS = 2


@pytest.mark.timeout(SECONDS + 600)
def test_nothing_is_lost_and_nothing_grows(ground: Ground) -> None:
    """Whatever the callers do to it, and however often it is killed meanwhile."""
    soak = Soak(ground, CALLERS, SEED)
    fresh = soak.gauges.now()

    soak.run(SECONDS * 0.75, SECONDS * 0.25)

    used = soak.gauges.at_rest(fresh)
    first, second = halves(soak.gauges.since_mark)
    figures.report(
        f"soak, {SECONDS:g} s, {CALLERS} callers, seed {SEED}, {soak.kills} kills, "
        f"{len(soak.violations)} violations",
        soak.answers,
    )
    figures.LINES += [
        f"  when started:             {in_words(fresh)}",
        f"  first half without kills: {in_words(first)}",
        f"  second half:              {in_words(second)}",
        f"  at rest afterwards:       {in_words(used)}",
    ]
    assert not soak.violations, f"{len(soak.violations)} violations:\n" + "\n".join(soak.violations)
    assert used.descriptors <= fresh.descriptors + _SPARE_DESCRIPTORS
    if SECONDS >= _LONG_S:
        assert second.memory_bytes <= first.memory_bytes * _GROWTH
        assert second.threads <= first.threads * _GROWTH + 1
        assert second.descriptors <= first.descriptors * _GROWTH + CALLERS
