"""Volumes are attached to the node, and what the other cases show is so here, too."""

from tests.cluster.cases.attached.witness import Witness
from tests.cluster.cases.driver import driver_pods
from tests.cluster.cases.namespaces import GONE_S, Namespace
from tests.cluster.cases.objects import (
    DRIVER,
    Manifest,
    Use,
    claim,
    from_snapshot,
    pod,
    shipped_class,
)
from tests.cluster.cases.test_copies import (
    test_a_restore_has_the_old_data_and_a_clone_is_independent,
    test_a_snapshot_outlives_its_source_and_a_restore_may_be_larger,
)
from tests.cluster.cases.test_data import (
    test_data_outlives_its_pod_in_a_directory_whose_size_is_not_enforced,
    test_data_outlives_its_pod_in_images_and_on_raw_block,
)
from tests.cluster.cases.test_growth import test_pods_see_their_volumes_grow_without_a_restart

__all__ = [
    "test_a_restore_has_the_old_data_and_a_clone_is_independent",
    "test_a_snapshot_outlives_its_source_and_a_restore_may_be_larger",
    "test_data_outlives_its_pod_in_a_directory_whose_size_is_not_enforced",
    "test_data_outlives_its_pod_in_images_and_on_raw_block",
    "test_pods_see_their_volumes_grow_without_a_restart",
]


def test_a_driver_that_is_installed_again_finds_its_volumes(witness: Witness) -> None:
    there = witness.namespace
    assert witness.written_meanwhile == "before\nmeanwhile"
    assert there.shell("witness", "cat /data/file") == witness.written_meanwhile
    # What was mounted by another installation is unmounted, mounted and copied by this one.
    there.delete("pod/witness")
    restored = claim("restored", shipped_class("ext4"), "64Mi", source=from_snapshot("witness"))
    there.start(pod("witness", Use("witness")), pod("restored", Use("restored")), restored)
    assert there.shell("witness", "cat /data/file") == witness.written_meanwhile
    assert there.shell("restored", "cat /data/file") == "before"


def test_a_volume_is_attached_while_a_pod_uses_it(namespace: Namespace) -> None:
    namespace.start(pod("user", Use("data")), claim("data", shipped_class("ext4"), "64Mi"))
    attachment = _attachment(namespace, "data")
    assert attachment is not None
    assert attachment["spec"]["attacher"] == DRIVER
    assert attachment["spec"]["nodeName"] == namespace.get("pod", "user")["spec"]["nodeName"]
    assert attachment["status"]["attached"] is True
    handle = _volume(namespace, "data")["spec"]["csi"]["volumeHandle"]
    assert _was_called(namespace, "ControllerPublishVolume", handle)
    assert not _was_called(namespace, "ControllerUnpublishVolume", handle)

    namespace.delete("pod/user")
    namespace.wait_until(
        lambda: _attachment(namespace, "data") is None, GONE_S, "the volume to be detached"
    )
    assert _was_called(namespace, "ControllerUnpublishVolume", handle)


def _volume(namespace: Namespace, of_claim: str) -> Manifest:
    name = namespace.get("pvc", of_claim)["spec"]["volumeName"]
    found: Manifest = namespace.kubectl.get("persistentvolume", name)
    return found


def _attachment(namespace: Namespace, of_claim: str) -> Manifest | None:
    name = namespace.get("pvc", of_claim)["spec"]["volumeName"]
    for each in namespace.kubectl.get("volumeattachments")["items"]:
        if each["spec"]["source"].get("persistentVolumeName") == name:
            found: Manifest = each
            return found
    return None


def _was_called(namespace: Namespace, method: str, handle: str) -> bool:
    """Whether the driver's log tells of a call that concerns a volume."""
    lines = driver_pods(namespace.kubectl)[0].log().splitlines()
    return any(f'{method}"' in line and handle in line for line in lines)
