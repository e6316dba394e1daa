"""A volume has the size that was asked for, and not a block more."""

from tests.cluster.cases.namespaces import Namespace
from tests.cluster.cases.objects import Use, claim, pod, shipped_class

# Of 1 GiB, by docs/limitations.md: what df shows, and what holds data.
SHOWN = {"ext4": 0.95, "xfs": 0.94, "btrfs": 1.0}
HELD_KIB = {"ext4": 0.93, "xfs": 0.88, "btrfs": 0.85}
GIB_KIB = 1 << 20


def test_a_volume_is_as_large_as_asked_and_full_at_its_end(namespace: Namespace) -> None:
    neighbours = {fs_type: f"{fs_type}-neighbour" for fs_type in SHOWN}
    claims = [claim(name, shipped_class(name), "1Gi") for name in SHOWN]
    claims += [claim(name, shipped_class(fs_type), "300Mi") for fs_type, name in neighbours.items()]
    namespace.start(*(pod(name, Use(name)) for name in (*SHOWN, *neighbours.values())), *claims)
    for name in neighbours.values():
        namespace.shell(name, "dd if=/dev/urandom of=/data/file bs=1M count=8 conv=fsync")
    before = {name: _state(namespace, name) for name in neighbours.values()}

    for fs_type, share in SHOWN.items():
        shown = namespace.size_kib(fs_type)
        assert share * GIB_KIB * 0.99 <= shown <= GIB_KIB, fs_type
        _fill(namespace, fs_type)

    for name, state in before.items():
        assert _state(namespace, name) == state
        namespace.shell(name, "dd if=/dev/urandom of=/data/more bs=1M count=8 conv=fsync")


def test_a_raw_block_volume_ends_where_it_ends(namespace: Namespace) -> None:
    uses = {name: Use(name, "/dev/data", block=True) for name in ("volume", "neighbour")}
    claims = [claim(name, shipped_class("ext4"), "64Mi", block=True) for name in uses]
    namespace.start(*(pod(name, use) for name, use in uses.items()), *claims)
    namespace.shell("neighbour", "dd if=/dev/urandom of=/dev/data bs=1M count=64 conv=fsync")
    before = namespace.shell("neighbour", "sha256sum /dev/data")

    assert namespace.shell("volume", "blockdev --getsize64 /dev/data") == str(64 << 20)
    namespace.shell("volume", "dd if=/dev/zero of=/dev/data bs=1M count=64 conv=fsync")
    beyond = namespace.shell_error("volume", "dd if=/dev/zero of=/dev/data bs=1M count=65")
    assert "No space left on device" in beyond
    assert namespace.shell("neighbour", "sha256sum /dev/data") == before


def _fill(namespace: Namespace, fs_type: str) -> None:
    """Writes until there is no room; most of it is allocated only, which is quicker."""
    namespace.shell(fs_type, "fallocate -l 768M /data/most")
    error = namespace.shell_error(fs_type, "dd if=/dev/zero of=/data/rest bs=1M conv=fsync")
    assert "No space left on device" in error, fs_type
    held = namespace.shell(fs_type, "sync; du -k -s /data").split()[0]
    assert HELD_KIB[fs_type] * GIB_KIB <= int(held) <= GIB_KIB, fs_type


def _state(namespace: Namespace, pod_name: str) -> list[str]:
    look = "sha256sum /data/file; ls -l /data"
    return namespace.shell(pod_name, look).splitlines()
