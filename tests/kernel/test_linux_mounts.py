"""csi.linux.mounts against the kernel."""

import contextlib
import errno
import os
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from csi.linux import loop, mounts, syscalls
from csi.linux.filesystems import make_filesystem
from csi.linux.paths import is_mount_root
from tests.disks import mount_image, mounted_below, opened, release

pytestmark = pytest.mark.kernel

MS_BIND, MS_SHARED, MS_PRIVATE = 1 << 12, 1 << 20, 1 << 18


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A file with an ext4 in it."""
    path = tmp_path / "disk.img"
    with path.open("xb") as file:
        file.truncate(16 << 20)
    make_filesystem("ext4", str(path))
    return path


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory to mount at."""
    path = tmp_path / "place"
    path.mkdir()
    yield path
    release(path)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory with a file in it."""
    path = tmp_path / "source"
    path.mkdir()
    (path / "file").write_text("content")
    return path


def bind(
    source: Path,
    target: Path,
    *,
    read_only: bool = False,
    options: tuple[str, ...] = (),
    allow_devices: bool = False,
) -> None:
    with opened(source, os.O_PATH) as source_fd, opened(target, os.O_PATH) as target_fd:
        mounts.bind_mount(
            source_fd,
            target_fd,
            read_only=read_only,
            options=options,
            allow_devices=allow_devices,
        )


def mount_at(target: Path) -> mounts.Mount:
    """The topmost mount there."""
    return [mount for mount in mounts.read_mounts() if mount.target == str(target)][-1]


class TestOnceFree:
    """A mount that somebody only looks at is busy for that moment, and no longer."""

    def test_what_is_let_go_of_is_unmounted(self, image: Path, place: Path) -> None:
        mount_image(image, place, "ext4")
        looking = os.open(place, os.O_RDONLY)
        look_away = threading.Timer(0.1, os.close, (looking,))
        look_away.start()
        try:
            mounts.once_free(lambda: mounts.unmount(str(place)))
        finally:
            look_away.join()
        assert not is_mount_root(str(place))

    def test_what_is_not_is_told(self, image: Path, place: Path) -> None:
        mount_image(image, place, "ext4")
        with opened(place, os.O_RDONLY), pytest.raises(OSError, match="busy") as caught:
            mounts.once_free(lambda: mounts.unmount(str(place)))
        assert caught.value.errno == errno.EBUSY

    def test_what_else_fails_is_told_at_once(self, place: Path) -> None:
        begin = time.monotonic()
        with pytest.raises(OSError, match="Invalid"):
            mounts.once_free(lambda: mounts.unmount(str(place)))
        assert time.monotonic() - begin < 0.4


class TestMountFilesystem:
    def test_mounts_without_set_user_id_and_devices(self, image: Path, place: Path) -> None:
        device = mount_image(image, place, "ext4")
        found = mount_at(place)
        assert found.options >= {"rw", "nosuid", "nodev"}
        assert (found.source, found.fs_type, found.root) == (device.path, "ext4", "/")
        assert (place / "lost+found").is_dir()

    def test_words_of_every_filesystem_become_flags(self, image: Path, place: Path) -> None:
        words = ("noatime", "nodiratime", "noexec", "sync", "dirsync", "lazytime", "rw", "nosuid")
        mount_image(image, place, "ext4", options=(*words, "nodev", "errors=remount-ro", "discard"))
        found = mount_at(place)
        assert found.options >= {"rw", "nosuid", "nodev", "noexec", "noatime", "nodiratime"}
        assert found.super_options >= {"sync", "dirsync", "lazytime", "discard"}
        assert "errors=remount-ro" in found.super_options

    @pytest.mark.parametrize("words", [("relatime",), ("strictatime",)])
    def test_access_times(self, image: Path, place: Path, words: tuple[str, ...]) -> None:
        mount_image(image, place, "ext4", options=words)
        assert ("relatime" in mount_at(place).options) == ("relatime" in words)

    @pytest.mark.parametrize("read_only", [True, False])
    def test_read_only_wins_over_the_options(
        self, image: Path, place: Path, read_only: bool
    ) -> None:
        options = ("rw",) if read_only else ("ro",)
        with (
            opened(image, os.O_RDONLY) as file,
            opened(place, os.O_PATH) as target,
            loop.attach(file, autoclear=True, read_only=True) as attached,
        ):
            mounts.mount_filesystem(
                attached.device.path, target, "ext4", options=options, read_only=read_only
            )
        found = mount_at(place)
        assert "ro" in found.options
        assert "ro" in found.super_options

    def test_lands_on_the_directory_that_was_opened(
        self, image: Path, place: Path, tmp_path: Path
    ) -> None:
        """Though a link took its name after it was opened."""
        victim, moved = tmp_path / "victim", tmp_path / "moved"
        victim.mkdir()
        with opened(place, os.O_PATH) as target, opened(image, os.O_RDWR) as file:
            place.rename(moved)
            place.symlink_to(victim)
            with loop.attach(file, autoclear=True) as attached:
                mounts.mount_filesystem(attached.device.path, target, "ext4")
        assert mounted_below(tmp_path) == [moved]
        mounts.unmount(str(moved))
        place.unlink()
        moved.rename(place)

    def test_a_bad_option_is_refused(self, image: Path, place: Path) -> None:
        with pytest.raises(OSError, match="mount: Invalid") as caught:
            mount_image(image, place, "ext4", options=("no-such-option",))
        assert caught.value.errno == errno.EINVAL

    def test_options_beyond_a_page_are_not_cut_off(self, image: Path, place: Path) -> None:
        with pytest.raises(OSError, match="longer than a page") as caught:
            mount_image(image, place, "ext4", options=("discard",) * 600)
        assert caught.value.errno == errno.E2BIG
        assert not is_mount_root(str(place))

    def test_what_is_no_filesystem_is_refused(self, image: Path, place: Path) -> None:
        image.write_bytes(bytes(1 << 20))
        with pytest.raises(OSError, match="mount: Invalid") as caught:
            mount_image(image, place, "ext4")
        assert caught.value.errno == errno.EINVAL


class TestBindMount:
    def test_shows_a_directory(self, source: Path, place: Path) -> None:
        bind(source, place)
        assert (place / "file").read_text() == "content"
        (place / "new").write_text("new")
        assert (source / "new").read_text() == "new"
        assert mount_at(place).options >= {"rw", "nosuid", "nodev"}

    def test_shows_a_file(self, source: Path, tmp_path: Path) -> None:
        target = tmp_path / "target"
        target.touch()
        bind(source / "file", target)
        try:
            assert target.read_text() == "content"
            assert is_mount_root(str(target))
        finally:
            mounts.unmount(str(target))
        assert target.read_text() == ""

    def test_read_only_is_this_mount_alone(self, source: Path, place: Path) -> None:
        bind(source, place, read_only=True)
        with pytest.raises(OSError, match="Read-only") as caught:
            (place / "new").touch()
        assert caught.value.errno == errno.EROFS
        (source / "new").touch()

    def test_options(self, source: Path, place: Path) -> None:
        bind(source, place, options=("noexec", "noatime", "nodiratime", "discard", "ro"))
        found = mount_at(place).options
        assert found >= {"ro", "noexec", "noatime", "nodiratime"}
        assert "discard" not in found

    @pytest.mark.parametrize(
        ("options", "shown"),
        [
            (("noatime",), {"noatime"}),
            (("relatime",), {"relatime"}),
            (("strictatime",), set()),
            (("noatime", "relatime"), {"relatime"}),
            (("relatime", "noatime"), {"noatime"}),
        ],
    )
    def test_of_two_that_contradict_the_later_counts(
        self, source: Path, place: Path, options: tuple[str, ...], shown: set[str]
    ) -> None:
        bind(source, place, options=options)
        assert mount_at(place).options & {"noatime", "relatime"} == shown

    @pytest.mark.parametrize("allowed", [True, False])
    def test_a_device_node_opens_where_devices_are_allowed(
        self, image: Path, tmp_path: Path, allowed: bool
    ) -> None:
        target = tmp_path / "device"
        target.touch()
        with opened(image, os.O_RDWR) as file, loop.attach(file, autoclear=True) as attached:
            bind(Path(attached.device.path), target, allow_devices=allowed)
            try:
                assert stat.S_ISBLK(target.stat().st_mode)
                if allowed:
                    with opened(target, os.O_RDONLY) as device:
                        assert loop.device_size(device) == 16 << 20
                else:
                    with pytest.raises(PermissionError):
                        os.close(os.open(target, os.O_RDONLY))
            finally:
                mounts.unmount(str(target))

    def test_lands_on_what_was_opened(self, source: Path, place: Path, tmp_path: Path) -> None:
        """Though links took both names after they were opened."""
        victim = tmp_path / "victim"
        victim.mkdir()
        with opened(source, os.O_PATH) as source_fd, opened(place, os.O_PATH) as target_fd:
            source.rename(tmp_path / "source-moved")
            place.rename(tmp_path / "place-moved")
            source.symlink_to("/etc")
            place.symlink_to(victim)
            mounts.bind_mount(source_fd, target_fd)
        assert mounted_below(tmp_path) == [tmp_path / "place-moved"]
        assert (tmp_path / "place-moved" / "file").read_text() == "content"
        mounts.unmount(str(tmp_path / "place-moved"))
        place.unlink()
        (tmp_path / "place-moved").rename(place)

    def test_what_is_mounted_below_does_not_come_along(
        self, source: Path, place: Path, xfs_pool: Path
    ) -> None:
        (source / "below").mkdir()
        bind(xfs_pool, source / "below")
        try:
            bind(source, place)
            assert mounted_below(place) == [place]
        finally:
            release(source)

    def test_a_directory_does_not_go_onto_a_file(self, source: Path, tmp_path: Path) -> None:
        (tmp_path / "target").touch()
        with pytest.raises(OSError, match="move_mount") as caught:
            bind(source, tmp_path / "target")
        assert caught.value.errno == errno.EINVAL
        assert mounted_below(tmp_path) == []

    def test_reaches_the_peers_of_a_shared_parent(self, tmp_path: Path, source: Path) -> None:
        host, pod = tmp_path / "host", tmp_path / "pod"
        host.mkdir()
        pod.mkdir()
        bind(host, host)
        syscalls.mount("none", str(host), "", MS_SHARED, "")
        syscalls.mount(str(host), str(pod), "", MS_BIND, "")
        try:
            (host / "target").mkdir()
            bind(source, host / "target", read_only=True)
            assert (pod / "target" / "file").read_text() == "content"
            assert "ro" in mount_at(pod / "target").options
            mounts.unmount(str(host / "target"))
            assert list((pod / "target").iterdir()) == []
        finally:
            for path in (host, pod):
                with contextlib.suppress(OSError):
                    syscalls.mount("none", str(path), "", MS_PRIVATE, "")
                release(path)


class TestUnmount:
    def test_takes_the_topmost_away(self, source: Path, place: Path) -> None:
        bind(source, place)
        mounts.unmount(str(place))
        assert not is_mount_root(str(place))

    def test_what_is_in_use_stays(self, source: Path, place: Path) -> None:
        bind(source, place)
        with (
            opened(place / "file", os.O_RDONLY),
            pytest.raises(OSError, match=r"(umount2|openat2): ") as caught,
        ):
            mounts.unmount(str(place))
        assert (caught.value.errno, caught.value.filename) == (errno.EBUSY, str(place))

    def test_what_is_no_mount_raises(self, place: Path) -> None:
        with pytest.raises(OSError, match="umount2") as caught:
            mounts.unmount(str(place))
        assert caught.value.errno == errno.EINVAL

    def test_a_symlink_is_not_followed(self, source: Path, place: Path, tmp_path: Path) -> None:
        bind(source, place)
        (tmp_path / "link").symlink_to(place)
        with pytest.raises(OSError, match="umount2"):
            mounts.unmount(str(tmp_path / "link"))
        assert is_mount_root(str(place))

    def test_all_takes_away_what_is_stacked(self, source: Path, place: Path) -> None:
        for _ in range(3):
            bind(source, place)
        mounts.unmount_all(str(place))
        assert not is_mount_root(str(place))
        mounts.unmount_all(str(place))

    def test_all_stops_at_what_is_in_use(self, source: Path, place: Path) -> None:
        bind(source, place)
        with opened(place / "file", os.O_RDONLY):
            bind(source, place)
            with pytest.raises(OSError, match=r"(umount2|openat2): ") as caught:
                mounts.unmount_all(str(place))
        assert caught.value.errno == errno.EBUSY

    def test_all_needs_a_path(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            mounts.unmount_all(str(tmp_path / "nothing"))


class TestReadMounts:
    @pytest.mark.parametrize(
        "name",
        ["with blank", "tab\tin it", "line\nin it", "back\\slash", "\\040", "nb\u00a0sp", "a\x0bb"],
    )
    def test_names_come_back_as_they_are(self, source: Path, tmp_path: Path, name: str) -> None:
        target = tmp_path / name
        target.mkdir()
        bind(source, target)
        try:
            assert mounted_below(tmp_path) == [target]
            assert mount_at(target).root.endswith("/source")
        finally:
            mounts.unmount(str(target))

    def test_names_that_are_no_utf_8(self, source: Path, tmp_path: Path) -> None:
        target = tmp_path / os.fsdecode(b"\xff\xfe")
        target.mkdir()
        bind(source, target)
        assert mounted_below(tmp_path) == [target]
        mounts.unmount(str(target))

    def test_says_where_a_filesystem_is(self, xfs_pool: Path) -> None:
        found = mount_at(xfs_pool)
        device = os.stat(xfs_pool).st_dev
        assert found.device == f"{os.major(device)}:{os.minor(device)}"
        assert found.source.startswith("/dev/loop")
        assert "inode64" in found.super_options

    def test_a_mount_of_something_removed_says_so(self, source: Path, place: Path) -> None:
        (source / "below").mkdir()
        bind(source / "below", place)
        (source / "below").rmdir()
        assert mount_at(place).root.endswith("/below//deleted")

    def test_the_mount_of_a_descriptor(self, xfs_pool: Path, place: Path) -> None:
        bind(xfs_pool, place)
        for path in (xfs_pool, place):
            with opened(path, os.O_PATH) as fd:
                assert mounts.mount_containing(fd).target == str(path)

    def test_a_mount_that_is_gone_is_not_found(self, xfs_pool: Path) -> None:
        with opened(xfs_pool, os.O_PATH) as fd:
            tree = syscalls.open_tree(fd, syscalls.OPEN_TREE_CLONE | syscalls.OPEN_TREE_CLOEXEC)
        try:
            with pytest.raises(FileNotFoundError):
                mounts.mount_containing(tree)
        finally:
            os.close(tree)
