"""Snapshots, what is restored from them, and clones."""

from tests.cluster.cases.namespaces import Namespace
from tests.cluster.cases.objects import (
    Use,
    claim,
    from_claim,
    from_snapshot,
    pod,
    shipped_class,
    snapshot,
)

SIZE = "300Mi"
# What is copied: a volume of each filesystem, and a raw device.
CLASSES = {
    "ext4": shipped_class("ext4"),
    "xfs": shipped_class("xfs"),
    "btrfs": shipped_class("btrfs"),
    "block": shipped_class("ext4"),
}


def test_a_restore_has_the_old_data_and_a_clone_is_independent(namespace: Namespace) -> None:
    sources = [claim(name, each, SIZE, block=_is_block(name)) for name, each in CLASSES.items()]
    namespace.start(*(pod(name, _use(name, name)) for name in CLASSES), *sources)
    for name in CLASSES:
        _write(namespace, name, "old")
    namespace.apply(*(snapshot(name, of_claim=name) for name in CLASSES))
    namespace.wait_snapshots(*CLASSES)
    for name in CLASSES:
        _write(namespace, name, "new")

    # The sources stay in use all the while.
    copies = []
    for name, storage_class in CLASSES.items():
        for copy, origin in (
            (f"{name}-restored", from_snapshot(name)),
            (f"{name}-clone", from_claim(name)),
        ):
            block = _is_block(name)
            copies.append(claim(copy, storage_class, SIZE, block=block, source=origin))
            copies.append(pod(copy, _use(name, copy)))
    namespace.start(*copies)

    for name in CLASSES:
        assert _read(namespace, f"{name}-restored") == "old"
        assert _read(namespace, f"{name}-clone") == "new"
        _write(namespace, f"{name}-clone", "of the clone")
        _write(namespace, f"{name}-restored", "of the restored")
        assert _read(namespace, name) == "new"
        _write(namespace, name, "of the source")
        assert _read(namespace, f"{name}-clone") == "of the clone"
        assert _read(namespace, f"{name}-restored") == "of the restored"


def test_a_snapshot_outlives_its_source_and_a_restore_may_be_larger(namespace: Namespace) -> None:
    namespace.start(pod("source", Use("source")), claim("source", CLASSES["xfs"], SIZE))
    namespace.shell("source", "echo kept > /data/file")
    namespace.apply(snapshot("kept", of_claim="source"))
    namespace.wait_snapshots("kept")
    namespace.delete("pod/source", "pvc/source")

    restored = claim("restored", CLASSES["xfs"], "1Gi", source=from_snapshot("kept"))
    namespace.start(pod("restored", Use("restored")), restored)
    assert namespace.shell("restored", "cat /data/file") == "kept"
    assert namespace.size_kib("restored") > 900 << 10


def _is_block(name: str) -> bool:
    return name.startswith("block")


def _use(name: str, of_claim: str) -> Use:
    return Use(of_claim, "/dev/data" if _is_block(name) else "/data", block=_is_block(name))


def _write(namespace: Namespace, pod_name: str, text: str) -> None:
    # A device is overwritten up to where the longest text ends; a file as a whole.
    if _is_block(pod_name):
        script = f"printf '%-32s' '{text}' | dd of=/dev/data conv=fsync,notrunc"
    else:
        script = f"echo '{text}' > /data/file; sync"
    namespace.shell(pod_name, script)


def _read(namespace: Namespace, pod_name: str) -> str:
    source = "/dev/data" if _is_block(pod_name) else "/data/file"
    return namespace.shell(pod_name, f"head -c 32 {source}").rstrip()
