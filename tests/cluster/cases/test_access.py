"""Who may use a volume, and how: access modes, read-only, subPath, fsGroup, mount options."""

from tests.cluster.cases.namespaces import Namespace
from tests.cluster.cases.objects import Use, claim, pod, shipped_class

EXT4 = shipped_class("ext4")
SIZE = "64Mi"


def test_two_pods_on_the_node_share_a_claim_that_is_read_write_once(namespace: Namespace) -> None:
    pods = [pod(name, Use("shared")) for name in ("first", "second")]
    namespace.start(*pods, claim("shared", EXT4, SIZE))

    namespace.shell("first", "echo from the first > /data/first")
    namespace.shell("second", "echo from the second > /data/second")
    assert namespace.shell("first", "cat /data/second") == "from the second"
    assert namespace.shell("second", "cat /data/first") == "from the first"


def test_a_second_pod_waits_for_a_claim_that_is_one_pods_alone(namespace: Namespace) -> None:
    namespace.start(pod("first", Use("alone")), claim("alone", EXT4, SIZE, mode="ReadWriteOncePod"))
    namespace.shell("first", "echo from the first > /data/file; sync")

    namespace.apply(pod("second", Use("alone")))
    namespace.wait_event("Pod/second", "ReadWriteOncePod")
    assert namespace.get("pod", "second")["status"]["phase"] == "Pending"

    namespace.delete("pod/first")
    namespace.wait_ready("second")
    assert namespace.shell("second", "cat /data/file") == "from the first"


def test_a_pod_that_asks_for_it_can_only_read(namespace: Namespace) -> None:
    namespace.start(pod("writer", Use("data")), claim("data", EXT4, SIZE))
    namespace.shell("writer", "echo before > /data/file; sync")

    namespace.start(pod("reader", Use("data", read_only=True)))
    assert namespace.shell("reader", "cat /data/file") == "before"
    assert "Read-only file system" in namespace.shell_error("reader", "echo x > /data/other")
    assert "Read-only file system" in namespace.shell_error("reader", "rm /data/file")
    # The other pod's mount is as it was.
    namespace.shell("writer", "echo after > /data/file")
    assert namespace.shell("reader", "cat /data/file") == "after"


def test_a_pod_sees_the_folders_of_a_volume_that_it_names(namespace: Namespace) -> None:
    whole = Use("data", "/whole")
    parts = [Use("data", f"/{name}", sub_path=f"parts/{name}") for name in ("one", "two")]
    namespace.start(pod("user", whole, *parts), claim("data", EXT4, SIZE))

    namespace.shell("user", "echo 1 > /one/file; echo 2 > /two/file")
    seen = namespace.shell("user", "cat /whole/parts/one/file /whole/parts/two/file; ls /one")
    assert seen.split() == ["1", "2", "file"]


def test_a_pod_that_is_not_root_writes_by_its_fs_group(namespace: Namespace) -> None:
    user = {"runAsUser": 1000, "runAsGroup": 1000, "runAsNonRoot": True}
    namespace.start(
        pod("with", Use("with"), security={**user, "fsGroup": 2000}),
        pod("without", Use("without"), security=user),
        claim("with", EXT4, SIZE),
        claim("without", EXT4, SIZE),
    )
    namespace.shell("with", "echo mine > /data/file")
    assert namespace.shell("with", "stat -c '%u %g' /data/file") == "1000 2000"
    assert namespace.shell("with", "stat -c %g /data") == "2000"
    assert "Permission denied" in namespace.shell_error("without", "echo mine > /data/file")


def test_the_mount_options_of_a_class_are_those_of_the_mount(namespace: Namespace) -> None:
    ext4, xfs = {"csi.storage.k8s.io/fstype": "ext4"}, {"csi.storage.k8s.io/fstype": "xfs"}
    classes = {
        "ext4": namespace.add_class("ext4", ext4, ("noatime", "commit=30")),
        "xfs": namespace.add_class("xfs", xfs, ("sync", "allocsize=1m")),
    }
    claims = [claim(name, storage_class, "300Mi") for name, storage_class in classes.items()]
    namespace.start(*(pod(name, Use(name)) for name in classes), *claims)

    _, options = namespace.mount("ext4", "/data")
    assert {"noatime", "commit=30", "nosuid", "nodev"} <= options
    _, options = namespace.mount("xfs", "/data")
    assert {"sync", "allocsize=1024k", "nosuid", "nodev"} <= options
