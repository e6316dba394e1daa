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


def table_of(monkeypatch: pytest.MonkeyPatch, *lines: str) -> mounts.MountTable:
    content = "".join(f"{line}\n" for line in lines).encode()
    monkeypatch.setattr(mounts, "_read_mountinfo", lambda: content)
    return mounts.MountTable()


def test_lines_are_found_by_any_of_their_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    table = table_of(
        monkeypatch,
        r"1 0 7:1 / /a\040b rw - ext4 /dev/loop1 rw",
        r"2 0 7:11 / /a\134b rw - ext4 /dev/loop11 rw",
        "3 0 0:9 /volumes/x/data /c rw shared:1 - btrfs /dev/loop1 rw",
        r"4 0 0:9 /volumes/x/data//deleted /d\011e rw - btrfs /dev/y rw",
    )

    def found(*fields: str) -> list[int]:
        return [mount.mount_id for mount in table.having(*fields)]

    assert found("/dev/loop1") == [1, 3]
    assert found("/a b") == [1]
    assert found("/a\\b", "/dev/loop1") == [1, 2, 3]
    assert found("/d\te", "/volumes/x/data") == [3, 4]
    assert found("/volumes/x", "loop1", "/a") == []
    assert table.having("/c")[0].target == "/c"


def test_nothing_is_found_in_an_empty_table(monkeypatch: pytest.MonkeyPatch) -> None:
    assert table_of(monkeypatch).having("/", "/dev/loop1") == []
