"""csi.linux.programs."""

import os
import sys
import time
from pathlib import Path

import pytest

from csi.errors import ProgramFailed, Unavailable
from csi.linux import programs


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-I", "-S", "-c", code)


def test_returns_what_it_printed() -> None:
    assert programs.run(python("print('out')"), timeout_s=10) == "out\n"


def test_bytes_that_are_no_text_do_no_harm() -> None:
    assert "\ufffd" in programs.run(python("import os; os.write(1, b'\\xff')"), timeout_s=10)


def test_speaks_english_and_inherits_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "secret")
    output = programs.run(python("import os; print(sorted(os.environ))"), timeout_s=10)
    assert output == "['LC_ALL', 'PATH']\n"


def test_has_no_input() -> None:
    code = "import sys; print(repr(sys.stdin.read()))"
    assert programs.run(python(code), timeout_s=10) == "''\n"


def test_gets_only_the_descriptors_it_is_given(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    given, kept = (os.open(tmp_path / "file", os.O_RDONLY) for _ in range(2))
    os.set_inheritable(kept, True)
    try:
        code = (
            f"import os; print(os.read({given}, 9)); print(os.path.exists('/proc/self/fd/{kept}'))"
        )
        output = programs.run(python(code), timeout_s=10, pass_fds=(given,))
        assert output == "b'content'\nFalse\n"
    finally:
        os.close(given)
        os.close(kept)


def test_a_failure_carries_the_end_of_what_it_said() -> None:
    code = "import sys; sys.stderr.write('x' * 5000 + 'the end'); sys.exit(3)"
    with pytest.raises(ProgramFailed, match="failed with status 3") as caught:
        programs.run(python(code), timeout_s=10)
    assert isinstance(caught.value, Unavailable)
    assert caught.value.status == 3
    assert caught.value.program == os.path.basename(sys.executable)
    assert caught.value.output.endswith("the end")
    assert len(caught.value.output) == 2000


def test_a_failure_that_was_told_on_standard_output() -> None:
    with pytest.raises(ProgramFailed, match="complaint"):
        programs.run(python("import sys; print('complaint'); sys.exit(1)"), timeout_s=10)


def test_a_status_may_be_fine() -> None:
    code = python("import sys; print('repaired'); sys.exit(1)")
    assert programs.run(code, timeout_s=10, ok=(0, 1)) == "repaired\n"


def test_a_signal_is_a_failure() -> None:
    with pytest.raises(ProgramFailed) as caught:
        programs.run(python("import os; os.kill(os.getpid(), 9)"), timeout_s=10)
    assert caught.value.status == -9


def test_what_takes_too_long_is_killed(tmp_path: Path) -> None:
    code = f"import os, sys, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n"
    code += "sys.stderr.write('working'); sys.stderr.flush(); time.sleep(60)"
    start = time.monotonic()
    with pytest.raises(ProgramFailed, match="did not end in time") as caught:
        programs.run(python(code), timeout_s=1)
    assert time.monotonic() - start < 10
    assert (caught.value.status, caught.value.output) == (None, "working")
    assert not Path("/proc", (tmp_path / "pid").read_text()).exists()


def test_a_missing_program_says_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "_search_path", lambda: "/nowhere")
    with pytest.raises(ProgramFailed, match="in the package xfsprogs") as caught:
        programs.run(("mkfs.xfs", "-V"), timeout_s=10)
    assert caught.value.status == 127


def test_an_unknown_program_that_is_missing() -> None:
    with pytest.raises(ProgramFailed, match=r"it is not installed$"):
        programs.run(("no-such-program",), timeout_s=10)


def test_a_program_that_cannot_be_run(tmp_path: Path) -> None:
    (tmp_path / "program").write_text("")
    with pytest.raises(ProgramFailed, match="not executable") as caught:
        programs.run((str(tmp_path / "program"),), timeout_s=10)
    assert caught.value.status == 126


def test_no_shell_reads_the_words(tmp_path: Path) -> None:
    word = f"$(touch {tmp_path}/file); `id` > {tmp_path}/other"
    code = ("/bin/echo", word)
    assert programs.run(code, timeout_s=10) == word + "\n"
    assert list(tmp_path.iterdir()) == []
