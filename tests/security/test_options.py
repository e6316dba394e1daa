"""Options of mount and mkfs from a StorageClass: what passes the lists can do no harm.

Whatever is put together of words that are allowed and words that are not, by commas, blanks and
characters that only look like them, either is refused or reaches the kernel as what it says.
"""

import re
from collections.abc import Iterator, Sequence
from unittest import mock

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from csi.errors import InvalidRequest
from csi.linux import mounts, syscalls
from csi.mkfs_options import parse_mkfs_options
from csi.model import Access, AccessMode, Capability, Kind
from csi.volumes import capabilities
from csi.volumes.targets import is_mounted
from tests.contract import requests
from tests.contract.bench import Bench
from tests.contract.refusals import Code, refused
from tests.contract.requests import filesystem
from tests.security import scale
from tests.security.corpus import FLAGS

EXAMPLES = scale.choose(100, 20_000)
FILESYSTEMS = ("ext4", "xfs", "btrfs")

# linux/mount.h
RDONLY, NOSUID, NODEV, NOEXEC, SYNC, DIRSYNC = 1, 2, 4, 8, 16, 128
NOATIME, NODIRATIME, RELATIME, STRICTATIME, LAZYTIME = 1 << 10, 1 << 11, 1 << 21, 1 << 24, 1 << 25
HARMLESS = (RDONLY | NOSUID | NODEV | NOEXEC | SYNC | DIRSYNC | NOATIME | NODIRATIME | RELATIME) | (
    STRICTATIME | LAZYTIME
)
HARMFUL_WORDS = re.compile(
    r"suid|dev|exec|remount|bind|rbind|move|r?(shared|private|slave|unbindable)|loop.*|journal.*=.*"
    r"|errors=panic|(fs|def|root)context=.*|subvol.*|device=.*|logdev=.*|rtdev=.*|.*quota.*|mand"
    r"|degraded|rescue=.*|usebackuproot|norecovery|noload|inode_readahead_blks=.*|sb=.*|dax.*"
)
ALLOWED = (
    *("ro", "noatime", "nosuid", "nodev", "noexec", "sync", "discard", "commit=5", "nouuid"),
    *("data=journal", "errors=remount-ro", "allocsize=64k", "logbufs=8", "compress=zstd:3"),
)
GLUE = (",", " ", ", ", "\n", "\0", "\t", "\r", "\x0b", "\\,", "\\040", "，", "\u2028", ";", "=")

words = st.sampled_from(ALLOWED + FLAGS) | st.text(max_size=20)
flags = words | st.builds(
    lambda parts, glue: glue.join(parts),
    st.lists(words, min_size=2, max_size=4),
    st.sampled_from(GLUE),
)


def allowed(given_flags: Sequence[str], fs_type: str, kind: Kind = Kind.IMAGE) -> bool:
    capability = Capability(
        access=Access.FILESYSTEM,
        mode=AccessMode.SINGLE_NODE_WRITER,
        mount_flags=tuple(given_flags),
    )
    try:
        capabilities.check_mount_flags([capability], kind, fs_type)
    except InvalidRequest:
        return False
    return True


def as_the_kernel_has_it(given_flags: Sequence[str], fs_type: str) -> tuple[int, list[str]]:
    with mock.patch.object(syscalls, "mount") as call:
        mounts.mount_filesystem("/dev/loop0", 0, fs_type, options=given_flags)
    _, _, _, bits, data = call.call_args.args
    return bits, data.split(",") if data else []


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(flags, max_size=4), st.sampled_from(FILESYSTEMS))
@example(["ro,suid"], "ext4")
@example(["noatime suid"], "xfs")
@example(['context="a",context="b"'], "ext4")
@example(["context=a", "context=b"], "ext4")
@example(["commit=5,journal_path=/dev/vda"], "ext4")
@example(["discard\n"], "xfs")
@example(["commit=５"], "ext4")
def test_what_passes_does_no_harm(given_flags: list[str], fs_type: str) -> None:
    if not allowed(given_flags, fs_type):
        return
    bits, data = as_the_kernel_has_it(given_flags, fs_type)

    assert bits & (NOSUID | NODEV) == NOSUID | NODEV
    assert bits | HARMLESS == HARMLESS
    for word in data:
        assert not HARMFUL_WORDS.fullmatch(word), f"{word!r} of {given_flags}"
        assert word.isascii()
        assert word.isprintable()
        assert " " not in word
    assert sum("context=" in word for word in data) <= 1, "two labels, of which one wins"
    if not any("context=" in flag for flag in given_flags):
        # A flag is a word and nothing more: none adds another one to those that were looked at.
        assert all("," not in flag for flag in given_flags)
        assert set(data) <= set(given_flags)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(flags, max_size=4))
def test_a_directory_takes_no_options_of_a_filesystem(given_flags: list[str]) -> None:
    if not allowed(given_flags, "", Kind.DIRECTORY):
        return
    wanted, cleared = mounts._attributes(given_flags, read_only=False, allow_devices=False)

    assert wanted & 0b110 == 0b110, "neither programs of root nor devices"
    assert cleared & 0b110 == 0
    assert not any("=" in flag or "," in flag for flag in given_flags)


REFUSED = [flag for flag in FLAGS if not allowed([flag], "ext4")]


@pytest.mark.parametrize("fs_type", FILESYSTEMS)
def test_the_lists_are_not_empty(fs_type: str) -> None:
    """Otherwise nothing passes, and the tests above show nothing."""
    assert any(allowed([flag], fs_type) for flag in ALLOWED if "=" in flag)
    assert allowed(["ro", "noatime"], fs_type)
    assert not any(allowed([flag], fs_type) for flag in FLAGS if HARMFUL_WORDS.fullmatch(flag))


mkfs_words = st.sampled_from(
    [
        *("-F", "-L", "-U", "-E", "-d", "-b", "-O", "-i", "-I", "-N", "-m", "-J", "-l", "-n", "-p"),
        *("--rootdir", "--csum", "-O^x", "size=64", "65536", "agcount=4", "file,name=/etc/passwd"),
        *("device=/dev/vda", "logdev=/dev/vda", "/dev/vda", "--", "crc32c", "single", "dup,raid1"),
    ]
) | st.text(max_size=12)


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    st.lists(mkfs_words, max_size=6),
    st.sampled_from([" ", "  ", "\n", "\t", ","]),
    st.sampled_from(FILESYSTEMS),
)
def test_what_mkfs_is_told_names_no_file(parts: list[str], glue: str, fs_type: str) -> None:
    try:
        told = parse_mkfs_options(glue.join(parts), fs_type)
    except InvalidRequest:
        return
    assert len(told) % 2 == 0
    for option, value in zip(told[::2], told[1::2], strict=True):
        assert re.fullmatch(r"--?\w+", option, re.ASCII)
        assert re.fullmatch(r"[\w^,=-]+", value, re.ASCII), "no path, no blank, no other option"
        assert not value.startswith("-")
        assert not re.search(r"dev|name|file|uuid", value)


class TestTheDriver:
    pytestmark = pytest.mark.kernel

    @pytest.fixture
    def volume_id(self, bench: Bench) -> Iterator[str]:
        yield bench.create().volume_id
        assert not is_mounted(str(bench.kubelet.directory))

    @pytest.mark.parametrize("flag", REFUSED[:: scale.choose(5, 1)], ids=repr)
    def test_it_refuses_them_in_every_call(self, bench: Bench, volume_id: str, flag: str) -> None:
        capability = filesystem(flags=["noatime", flag])
        staging = bench.kubelet.staging_path(volume_id)
        target = bench.kubelet.target_path(volume_id, bench.name("pod"))
        node = bench.driver.node

        with refused(Code.INVALID_ARGUMENT, "mount flag"):
            node.NodeStageVolume(requests.stage(volume_id, staging, capability))
        node.NodeStageVolume(requests.stage(volume_id, staging))
        with refused(Code.INVALID_ARGUMENT, "mount flag"):
            node.NodePublishVolume(requests.publish(volume_id, staging, target, capability))
        node.NodeUnstageVolume(requests.unstage(volume_id, staging))
        with refused(Code.INVALID_ARGUMENT):
            bench.create(capability=capability)

        assert not is_mounted(str(staging))
        assert not target.exists()
        scale.FIGURES["options smuggled"] += 1
