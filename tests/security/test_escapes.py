"""Each defence, shown by an attack that it stops and that succeeds without it.

The attacks run in a namespace where nothing but a folder in memory can be written: one that is let
through by taking its defence out reaches nothing real.
"""

from typing import Any

import pytest

from tests.security import scale
from tests.security.escapes import ATTACKS
from tests.security.sandbox import run_confined

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("escapes") / "memory"
    return run_confined("tests.security.escapes", folder, timeout_s=120)


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_fails(outcome: Any, attack: str) -> None:
    scale.FIGURES["attacks on single defences"] += 1
    assert outcome[attack]["defended"] == []


@pytest.mark.parametrize("attack", ATTACKS)
def test_it_succeeds_without_the_defence(outcome: Any, attack: str) -> None:
    """Otherwise the test above shows nothing."""
    assert outcome[attack]["undefended"] != []
