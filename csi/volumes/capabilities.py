"""What a volume can be used for: access modes, filesystems, and allowed mount flags."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from csi.errors import InvalidRequest, UnsupportedRequest
from csi.linux.filesystems import FILESYSTEMS
from csi.model import SINGLE_NODE_MODES, Access, Capability, Kind, Volume

_ANY_FILESYSTEM = (
    "ro|rw|noatime|nodiratime|relatime|strictatime|lazytime|nolazytime|sync|dirsync|noexec"
    "|nosuid|nodev"
)
_ALLOWED: Mapping[str, str] = {
    "ext4": r"discard|nodiscard|commit=\d{1,5}|data=(ordered|writeback|journal)|barrier=[01]"
    r"|errors=(continue|remount-ro)|delalloc|nodelalloc|journal_async_commit|max_batch_time=\d{1,9}"
    r"|min_batch_time=\d{1,9}|stripe=\d{1,9}",
    "xfs": r"discard|nodiscard|inode64|largeio|nolargeio|swalloc|allocsize=\d{1,12}[kmgKMG]?"
    r"|logbsize=\d{1,7}k?|logbufs=[2-8]|nouuid",
    "btrfs": r"discard|discard=(sync|async)|nodiscard|commit=\d{1,5}|autodefrag|noautodefrag"
    r"|compress(-force)?(=(no|none|zlib(:[1-9])?|lzo|zstd(:-?\d{1,2})?))?|datacow|nodatacow"
    r"|datasum|nodatasum|ssd|nossd|ssd_spread|space_cache=v2|flushoncommit|noflushoncommit"
    r"|max_inline=\d{1,5}|thread_pool=\d{1,3}",
}
"""Mount flags by filesystem. None of them leaves the volume, panics the node, or turns suid and
device nodes on; what is not here is refused."""


def check_capabilities(capabilities: Sequence[Capability], kind: Kind) -> None:
    """Checks that volumes of this kind can be used in all of these ways.

    Raises:
        UnsupportedRequest: One of them cannot be served; the message says which and why.
    """
    if len({capability.access for capability in capabilities}) > 1:
        raise UnsupportedRequest("a volume is either a filesystem or a block device, not both")
    for capability in capabilities:
        if capability.mode not in SINGLE_NODE_MODES:
            raise UnsupportedRequest(
                f"access mode {capability.mode} needs several nodes, and a local volume has one: "
                "use ReadWriteOnce or ReadWriteOncePod"
            )
        if capability.access is Access.BLOCK and kind is Kind.DIRECTORY:
            raise UnsupportedRequest("a directory is no block device; use kind: image")
    choose_filesystem(capabilities, "", "")
    check_mount_flags(capabilities, kind)


def choose_filesystem(capabilities: Sequence[Capability], preferred: str, default: str) -> str:
    """Returns the one filesystem that the capabilities name, else the preferred, else the default.

    Raises:
        InvalidRequest: They name several, or one that this driver does not make.
    """
    named = {capability.fs_type for capability in capabilities} - {""}
    if len(named) > 1:
        raise InvalidRequest(f"a volume has one filesystem, not {' and '.join(sorted(named))}")
    chosen = named.pop() if named else preferred or default
    if chosen and chosen not in FILESYSTEMS:
        raise InvalidRequest(
            f"filesystem {chosen!r} is not supported; choose {', '.join(sorted(FILESYSTEMS))}"
        )
    return chosen


def check_mount_flags(capabilities: Iterable[Capability], kind: Kind, fs_type: str = "") -> None:
    """Checks mount flags against the allow-list.

    Args:
        capabilities: Where the flags are.
        kind: A directory takes the flags of any filesystem only.
        fs_type: The filesystem, where it is known; otherwise any one of them must allow a flag.

    Raises:
        InvalidRequest: A flag is not allowed; the message names it.
    """
    if kind is Kind.DIRECTORY:
        special: list[str] = []
    elif fs_type:
        special = [_ALLOWED[fs_type]]
    else:
        special = list(_ALLOWED.values())
    allowed = re.compile("|".join(f"(?:{part})" for part in (_ANY_FILESYSTEM, *special)), re.ASCII)
    for capability in capabilities:
        for flag in capability.mount_flags:
            if allowed.fullmatch(flag) is None:
                raise InvalidRequest(
                    f"mount flag {flag!r} is not allowed for {fs_type or kind} volumes"
                )


def reason_against(volume: Volume, capabilities: Sequence[Capability]) -> str:
    """Returns why an existing volume cannot be used in these ways, or nothing if it can."""
    try:
        check_capabilities(capabilities, volume.kind)
        check_mount_flags(capabilities, volume.kind, volume.fs_type)
    except InvalidRequest as error:
        return str(error)
    for capability in capabilities:
        if capability.access is not volume.access:
            return (
                f"the volume is a {_in_words(volume.access)}, not a {_in_words(capability.access)}"
            )
        if capability.selinux_context and volume.kind is Kind.DIRECTORY:
            return "a directory has no filesystem of its own to mount with an SELinux context"
        if capability.fs_type and volume.fs_type and capability.fs_type != volume.fs_type:
            return f"the volume holds {volume.fs_type}, not {capability.fs_type}"
    return ""


def _in_words(access: Access) -> str:
    return "block device" if access is Access.BLOCK else "filesystem"
