"""Each pod's volume has the filesystem that its StorageClass asks for."""

from tests.cluster.cases.namespaces import Namespace
from tests.cluster.cases.objects import Use, claim, pod, shipped_class


def test_each_mount_is_what_its_class_asks_for(namespace: Namespace) -> None:
    classes = {
        "ext4": shipped_class("ext4"),
        "xfs": shipped_class("xfs"),
        "btrfs": namespace.add_class("override", {"csi.storage.k8s.io/fstype": "btrfs"}),
        # The default of the driver's configuration.
        "default": namespace.add_class("default", {}),
    }
    claims = [claim(name, storage_class, "300Mi") for name, storage_class in classes.items()]
    namespace.start(*(pod(name, Use(name)) for name in classes), *claims)

    mounted = {name: namespace.mount(name, "/data")[0] for name in classes}
    assert mounted == {"ext4": "ext4", "xfs": "xfs", "btrfs": "btrfs", "default": "ext4"}
