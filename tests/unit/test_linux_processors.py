"""Which processors threads run on: one for those that take turns, any for the rest."""

import contextlib
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from csi.linux import processors, programs
from csi.volumes.jobs import Jobs

ALLOWED = os.sched_getaffinity(0)
_PRINT = "import os; print(sorted(os.sched_getaffinity(0)))"


def in_thread(work: Callable[[], set[int]]) -> set[int]:
    """What `work` returns in a thread of its own, so that no other test's thread is moved."""
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(work).result()


def test_threads_that_gather_are_on_one_processor_and_on_the_same() -> None:
    def gather() -> set[int]:
        processors.gather()
        return os.sched_getaffinity(0)

    first, second = in_thread(gather), in_thread(gather)
    assert len(first) == 1
    assert first == second <= ALLOWED


def test_a_thread_that_is_started_among_them_stays_and_its_starter_does_not() -> None:
    seen: list[set[int]] = []

    def start() -> set[int]:
        with processors.gathered():
            thread = threading.Thread(target=lambda: seen.append(os.sched_getaffinity(0)))
            thread.start()
            thread.join()
        return os.sched_getaffinity(0)

    assert in_thread(start) == ALLOWED
    assert [len(each) for each in seen] == [1]


def test_for_a_while_a_gathered_thread_may_run_anywhere() -> None:
    seen: list[set[int]] = []

    def work() -> set[int]:
        processors.gather()
        with contextlib.suppress(ZeroDivisionError), processors.scattered():
            seen.append(os.sched_getaffinity(0))
            raise ZeroDivisionError
        return os.sched_getaffinity(0)

    assert len(in_thread(work)) == 1
    assert seen == [ALLOWED]


def test_a_program_may_run_anywhere_whoever_starts_it(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(_PRINT, encoding="ascii")

    def work() -> set[int]:
        processors.gather()
        said = programs.run([sys.executable, str(script)], timeout_s=60)
        assert len(os.sched_getaffinity(0)) == 1
        return {int(each) for each in said.strip("[]\n ").split(",")}

    assert in_thread(work) == ALLOWED


def test_a_job_may_run_anywhere_whoever_submits_it() -> None:
    jobs = Jobs(1)
    seen: list[set[int]] = []

    def submit() -> set[int]:
        processors.gather()
        jobs.submit("key", lambda _: seen.append(os.sched_getaffinity(0)))
        jobs.wait("key", 10)
        return set()

    in_thread(submit)
    jobs.close()
    assert seen == [ALLOWED]


def test_where_it_may_not_move_a_thread_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError

    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    processors.gather()
    with processors.scattered():
        assert os.sched_getaffinity(0) == ALLOWED
