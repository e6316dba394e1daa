"""Volumes that live and die with their pod leave nothing behind."""

from tests.cluster.cases.driver import claims_in_pools
from tests.cluster.cases.namespaces import GONE_S, Namespace
from tests.cluster.cases.objects import Use, claim, generic_ephemeral, inline, pod, shipped_class


def test_inline_and_generic_ephemeral_volumes_vanish_with_their_pod(namespace: Namespace) -> None:
    of_pod = (
        Use(inline(size="64Mi"), "/scratch"),
        Use(inline(size="300Mi", fsType="xfs"), "/scratch-xfs"),
        Use(generic_ephemeral(shipped_class("ext4"), "64Mi"), "/work"),
    )
    kept = claim("kept", shipped_class("ext4"), "64Mi")
    namespace.start(pod("short", *of_pod, Use("kept", "/kept")), kept)
    for use in of_pod:
        namespace.shell("short", f"echo data > {use.path}/file; cat {use.path}/file")
    assert namespace.mount("short", "/scratch")[0] == "ext4"
    assert namespace.mount("short", "/scratch-xfs")[0] == "xfs"
    assert 300 * 1024 * 0.7 < namespace.size_kib("short", "/scratch-xfs") <= 300 * 1024
    # Inline volumes go by their pod's name, the other by its claim's.
    everything = {"short", "short-volume2", "kept"}
    assert claims_in_pools(namespace.kubectl, namespace.name) == everything

    namespace.delete("pod/short")
    namespace.wait_until(
        lambda: claims_in_pools(namespace.kubectl, namespace.name) == {"kept"},
        GONE_S,
        "the pod's volumes to be gone, and the claim's to be there",
    )
    claims = namespace.get("pvc")["items"]
    assert [each["metadata"]["name"] for each in claims] == ["kept"]
