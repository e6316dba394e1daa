"""Waiting for a volume to be let go of."""

import threading
import time

import pytest

from csi.volumes import releases as module
from csi.volumes.releases import Releases


def test_what_is_not_in_use_is_not_waited_for() -> None:
    start = time.monotonic()
    Releases().wait("key", lambda: False)
    assert time.monotonic() - start < 0.5


def test_the_end_of_a_release_wakes_the_one_who_waits() -> None:
    releases = Releases()
    used = threading.Event()
    used.set()
    asked = threading.Semaphore(0)

    def in_use() -> bool:
        asked.release()
        return used.is_set()

    waiting = threading.Thread(target=releases.wait, args=("key", in_use))
    start = time.monotonic()
    waiting.start()
    assert asked.acquire(timeout=5)
    with releases.letting_go("another"):
        pass
    with releases.letting_go("key"):
        used.clear()
    waiting.join(5)
    assert time.monotonic() - start < module.LONGEST_S


def test_a_release_under_way_is_waited_for_though_the_volume_shows_nowhere() -> None:
    releases = Releases()
    ended = threading.Event()

    def wait() -> None:
        releases.wait("key", lambda: False)
        ended.set()

    with releases.letting_go("key"):
        threading.Thread(target=wait).start()
        assert not ended.wait(0.1)
    assert ended.wait(5)


def test_a_release_that_did_not_help_is_waited_for_again_until_time_is_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "LONGEST_S", 0.3)
    releases = Releases()

    def busy() -> None:
        time.sleep(0.1)
        with releases.letting_go("key"):
            pass

    threading.Thread(target=busy).start()
    start = time.monotonic()
    releases.wait("key", lambda: True)
    assert 0.3 <= time.monotonic() - start < 5


def test_a_second_one_and_one_too_many_do_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 1)
    releases = Releases()
    asked = threading.Event()
    used = threading.Event()
    used.set()

    def in_use() -> bool:
        asked.set()
        return used.is_set()

    waiting = threading.Thread(target=releases.wait, args=("key", in_use))
    waiting.start()
    assert asked.wait(5)
    start = time.monotonic()
    releases.wait("key", lambda: True)
    releases.wait("another", lambda: True)
    assert time.monotonic() - start < module.LONGEST_S / 2
    used.clear()
    with releases.letting_go("key"):
        pass
    waiting.join(5)
    assert not waiting.is_alive()
