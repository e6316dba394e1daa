"""Options for mkfs: what is on the list passes word by word, all else is refused by name."""

import pytest

from csi.errors import UnsupportedRequest
from csi.mkfs_options import parse_mkfs_options


@pytest.mark.parametrize(
    ("fs_type", "text"),
    [
        ("ext4", ""),
        ("ext4", "-i 65536"),
        ("ext4", "-I 512 -N 1000 -m 50 -J size=64 -O fast_commit,^metadata_csum"),
        (
            "xfs",
            "-m reflink=0,rmapbt=1 -i size=1024,maxpct=10 -l size=64m -d agcount=2 -n size=8192",
        ),
        ("btrfs", "-n 32768 -m single --csum xxhash"),
    ],
)
def test_what_is_on_the_list_passes(fs_type: str, text: str) -> None:
    assert parse_mkfs_options(text, fs_type) == tuple(text.split())
    assert parse_mkfs_options(f"  {text}\n", fs_type) == tuple(text.split())


@pytest.mark.parametrize(
    ("fs_type", "text", "named"),
    [
        ("ext4", "-F", "'-F'"),
        ("ext4", "-L label", "'-L'"),
        ("ext4", "-b 1024", "'-b'"),
        ("ext4", "-E discard", "'-E'"),
        ("ext4", "-i", "''"),
        ("ext4", "-i65536", "'-i65536'"),
        ("ext4", "-i 65536 /dev/sda", "'/dev/sda'"),
        ("ext4", "-i /dev/sda", "'/dev/sda'"),
        ("ext4", "-i -F", "'-F'"),
        ("ext4", "-m 51", "'51'"),
        ("ext4", "-i 65536 -i 65536", "twice"),
        ("ext4", "-J device=/dev/sda", "'device=/dev/sda'"),
        ("ext4", "-O ^has_journal", "'^has_journal'"),
        ("ext4", "-O fast_commit,", "'fast_commit,'"),
        ("ext4", "-i \N{ARABIC-INDIC DIGIT ONE}" * 4, "is not allowed"),
        ("xfs", "-m crc=0", "'crc=0'"),
        ("xfs", "-m uuid=x", "'uuid=x'"),
        ("xfs", "-l logdev=/dev/sda", "'logdev=/dev/sda'"),
        ("xfs", "-d file,name=/etc/passwd", "'file,name=/etc/passwd'"),
        ("xfs", "-p /etc/passwd", "'-p'"),
        ("xfs", "-c options=/etc/passwd", "'-c'"),
        ("xfs", "-i 65536", "'65536'"),
        ("btrfs", "--rootdir /", "'--rootdir'"),
        ("btrfs", "-d raid1", "'-d'"),
        ("btrfs", "-m raid1", "'raid1'"),
    ],
)
def test_all_else_is_refused_by_name(fs_type: str, text: str, named: str) -> None:
    with pytest.raises(UnsupportedRequest) as caught:
        parse_mkfs_options(text, fs_type)
    assert named in str(caught.value)
    assert "mkfsOptions" in str(caught.value)
