"""How csi.linux.mounts reads the kernel's table."""

import select

import pytest

from csi.linux import mounts

LINE = r"36 35 98:0 /mnt1 /mnt\0402 rw,noatime shared:1 - ext3 /dev/root rw,errors=continue"


def test_a_line_of_the_manual() -> None:
    assert mounts._parsed(LINE) == mounts.Mount(
        mount_id=36,
        parent_id=35,
        device="98:0",
        root="/mnt1",
        target="/mnt 2",
        options=frozenset({"rw", "noatime"}),
        fs_type="ext3",
        source="/dev/root",
        super_options=frozenset({"rw", "errors=continue"}),
    )


@pytest.mark.parametrize(
    "optional", ["", "shared:1 ", "master:2 propagate_from:3 ", "unbindable new-field:x "]
)
def test_any_number_of_optional_fields(optional: str) -> None:
    found = mounts._parsed(LINE.replace("shared:1 ", optional))
    assert found is not None
    assert (found.fs_type, found.source) == ("ext3", "/dev/root")


def test_a_source_without_a_name() -> None:
    found = mounts._parsed("36 35 0:5 / /x rw - tmpfs  rw")
    assert found is not None
    assert found.source == ""


@pytest.mark.parametrize(
    ("field", "name"),
    [
        (r"/a\040b", "/a b"),
        (r"/a\011b", "/a\tb"),
        (r"/a\012b", "/a\nb"),
        (r"/a\134b", "/a\\b"),
        (r"/a\134040b", r"/a\040b"),
        (r"/a\043b", "/a#b"),
        ("/a\u2028b\x85\x0b\r", "/a\u2028b\x85\x0b\r"),
    ],
)
def test_names(field: str, name: str) -> None:
    found = mounts._parsed(f"36 35 0:5 {field} {field} rw - tmpfs {field} rw")
    assert found is not None
    assert [found.root, found.target, found.source] == [name] * 3


def test_a_dash_as_a_name_is_no_separator() -> None:
    found = mounts._parsed("36 35 0:5 - - - - - - -")
    assert found is not None
    assert (found.target, found.fs_type, found.source) == ("-", "-", "-")


@pytest.mark.parametrize(
    "line",
    [
        "",
        "36",
        "36 35 98:0 / /x rw",
        "36 35 98:0 / /x rw shared:1 ext3 /dev/root rw",
        "36 35 98:0 / /x rw - ext3",
        "x 35 98:0 / /x rw - ext3 /dev/root rw",
    ],
)
def test_what_is_no_line_is_left_out(line: str) -> None:
    assert mounts._parsed(line) is None


def test_the_table_of_this_process() -> None:
    targets = {mount.target for mount in mounts.read_mounts()}
    assert {"/", "/proc"} <= targets


def test_is_read_again_when_it_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([[(3, 10)], [(3, 10)], []])

    class Poll:
        def register(self, *_: object) -> None:
            pass

        def poll(self, _: int) -> list[tuple[int, int]]:
            return next(answers)

    monkeypatch.setattr(select, "poll", Poll)
    assert mounts.read_mounts()
    assert list(answers) == []
