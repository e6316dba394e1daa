"""Options for mkfs as a StorageClass may give them: a short list for each filesystem.

They are words of mkfs.ext4(8), mkfs.xfs(8) and mkfs.btrfs(8), each with a value. On the list is
what changes how a filesystem performs or how much it can hold, and never what it is made on, what
it is called, or whether something is overwritten. What is not on it is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from csi.errors import UnsupportedRequest


def _list_of(part: str) -> str:
    return f"(?:{part})(?:,(?:{part}))*"


_ALLOWED: Mapping[str, Mapping[str, str]] = {
    "ext4": {
        "-i": r"\d{4,8}",  # bytes for each inode
        "-I": r"256|512|1024",  # size of an inode
        "-N": r"\d{2,10}",  # number of inodes
        "-m": r"[0-9]|[1-4]\d|50",  # percent that only root may use
        "-J": r"size=\d{1,5}",  # journal, in MiB
        "-O": _list_of(r"\^?(?:fast_commit|inline_data|large_dir|metadata_csum|orphan_file)"),
    },
    "xfs": {
        "-m": _list_of(r"(?:bigtime|finobt|inobtcount|reflink|rmapbt)=[01]"),
        "-i": _list_of(r"size=(?:512|1024|2048)|maxpct=\d{1,2}|sparse=[01]"),
        "-l": r"size=\d{1,12}[kmg]?",
        "-d": r"agcount=\d{1,4}",
        "-n": r"size=(?:4096|8192|16384|32768|65536)",
    },
    "btrfs": {
        "-n": r"4096|8192|16384|32768|65536",
        "-m": r"single|dup",
        "--csum": r"crc32c|xxhash|sha256|blake2",
    },
}


def parse_mkfs_options(text: str, fs_type: str, where: str = "mkfsOptions") -> tuple[str, ...]:
    """Returns the words of the options for a filesystem.

    Raises:
        UnsupportedRequest: One of them is not on the list, or its value is not allowed.
    """
    allowed = _ALLOWED[fs_type]
    words = text.split()
    given = set()
    for option, value in zip(words[::2], [*words[1::2], ""], strict=False):
        if option not in allowed:
            raise UnsupportedRequest(
                f"{where}: {option[:64]!r} is not allowed for {fs_type}; allowed are "
                f"{', '.join(allowed)}, each with a value"
            )
        if option in given:
            raise UnsupportedRequest(f"{where}: {option} is given twice")
        given.add(option)
        if not re.fullmatch(allowed[option], value, re.ASCII):
            raise UnsupportedRequest(
                f"{where}: {value[:64]!r} is not allowed as the value of {option} for {fs_type}"
            )
    return tuple(words)
