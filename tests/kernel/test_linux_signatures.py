"""What is on a device already is never formatted over, whoever left it there."""

import errno
import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from csi.errors import ProgramFailed
from csi.linux import filesystems, loop
from tests.disks import opened
from tests.signatures import SIGNATURES, kind_of

pytestmark = pytest.mark.kernel

MIB = 1 << 20
SIZE = 16 * MIB
LARGER = {"xfs": 300 * MIB, "btrfs": 110 * MIB}
"""What those can be made in; that nothing is written over is seen by reading all of it."""


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    with path.open("xb") as file:
        file.truncate(SIZE)
    return path


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.mark.parametrize("signature", SIGNATURES)
def test_what_others_have_written_is_left_as_it_is(image: Path, signature: str) -> None:
    os.truncate(image, LARGER.get(signature, SIZE))
    SIGNATURES[signature](image)
    before = digest(image)

    for fs_type in filesystems.FILESYSTEMS:
        with pytest.raises(OSError, match="something on it already") as caught:
            filesystems.make_filesystem(fs_type, str(image))
        assert caught.value.errno == errno.EEXIST
        assert kind_of(signature) in str(caught.value)

    assert digest(image) == before


def test_two_signatures_that_contradict_each_other(image: Path) -> None:
    """Blkid names neither then; that is no leave to write."""
    SIGNATURES["ext4"](image)
    SIGNATURES["iso9660"](image)
    before = digest(image)

    with pytest.raises(ProgramFailed, match="blkid"):
        filesystems.make_filesystem("xfs", str(image))

    assert digest(image) == before


def test_a_cache_is_not_asked(image: Path, tmp_path: Path) -> None:
    """What blkid remembers of a device is of whoever had its number before."""
    cache = tmp_path / "blkid.tab"
    with opened(image, os.O_RDWR) as file, loop.attach(file, autoclear=True) as attached:
        device = attached.device.path
        subprocess.run(["mkfs.ext4", "-q", "-F", device], check=True)
        subprocess.run(["blkid", "-c", str(cache), device], check=True, capture_output=True)
        assert 'TYPE="ext4"' in cache.read_text(encoding="utf-8")
        subprocess.run(["wipefs", "--all", "--quiet", device], check=True)
        os.environ["BLKID_FILE"] = str(cache)
        try:
            assert filesystems.probe(device) is None

            SIGNATURES["crypto_LUKS"](Path(device))
            assert filesystems.probe(device) == "crypto_LUKS"
            with pytest.raises(OSError, match="crypto_LUKS"):
                filesystems.make_filesystem("ext4", device)
        finally:
            del os.environ["BLKID_FILE"]
