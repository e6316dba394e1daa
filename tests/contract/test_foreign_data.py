"""Images that came to hold something else: nothing writes over it, and the message says what it is.

Staging formats nothing, so what is to be seen here is that it also mends and grows nothing.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract import requests
from tests.contract.bench import Bench
from tests.contract.node_fixtures import image_of, mounts_below, no_loop_over, run
from tests.contract.pods import Pods, pods_of
from tests.contract.refusals import Code, refused
from tests.contract.requests import LEAST_BYTES, MIB, filesystem, raw_block
from tests.signatures import SIGNATURES, kind_of

pytestmark = pytest.mark.kernel


@pytest.fixture
def pods(bench: Bench) -> Iterator[Pods]:
    yield from pods_of(bench)


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def empty(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(0)
        file.truncate(size)


@pytest.mark.parametrize(
    ("fs_type", "signature"),
    [
        *(("ext4", name) for name in SIGNATURES if name not in ("ext4", "xfs", "btrfs")),
        ("xfs", "ext4"),
        ("btrfs", "xfs"),
        ("xfs", "btrfs"),
        ("xfs", "crypto_LUKS"),
        ("btrfs", "gpt"),
    ],
)
def test_what_others_have_written_is_not_mounted_and_left_as_it_is(
    bench: Bench, pods: Pods, fs_type: str, signature: str
) -> None:
    capability = filesystem(fs_type)
    size = max(LEAST_BYTES.values()) if "xfs" in (fs_type, signature) else LEAST_BYTES[fs_type]
    volume_id = bench.create(size=size, capability=capability).volume_id
    # Staging would grow what it finds.
    bench.driver.controller.ControllerExpandVolume(requests.controller_expand(volume_id, 2 * size))
    image = image_of(bench.pool, volume_id)
    empty(image)
    SIGNATURES[signature](image)
    before = digest(image)

    # For sectors of 512 bytes; on this device only what protects it is in its place.
    found = "PMBR" if signature == "gpt" else kind_of(signature)
    with refused(Code.FAILED_PRECONDITION, volume_id, found, fs_type):
        pods.stage(volume_id, capability)

    assert digest(image) == before
    assert not mounts_below(bench.kubelet.directory)
    assert no_loop_over(image)


def test_an_image_that_was_emptied_is_not_formatted(bench: Bench, pods: Pods) -> None:
    volume_id = bench.create().volume_id
    image = image_of(bench.pool, volume_id)
    empty(image)

    with refused(Code.FAILED_PRECONDITION, volume_id, "nothing that is known", "ext4"):
        pods.stage(volume_id)

    assert image.stat().st_blocks == 0


def test_a_raw_block_volume_may_hold_anything(bench: Bench) -> None:
    volume_id = bench.create(size=8 * MIB, capability=raw_block()).volume_id
    image = image_of(bench.pool, volume_id)
    SIGNATURES["crypto_LUKS"](image)
    before = digest(image)

    with bench.used(volume_id, raw_block()) as target:
        assert run("blkid", "-p", "-s", "TYPE", "-o", "value", str(target)).strip() == "crypto_LUKS"

    assert digest(image) == before


def test_a_signature_beside_the_filesystem_does_not_hide_it(bench: Bench) -> None:
    """ext4 leaves its first kilobyte to others, so a boot sector there is no reason to refuse."""
    volume_id = bench.create().volume_id
    with image_of(bench.pool, volume_id).open("r+b") as file:
        file.seek(510)
        file.write(b"\x55\xaa")

    with bench.used(volume_id) as target:
        (target / "file").write_text("data", encoding="ascii")
