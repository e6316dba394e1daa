"""Several pools by name, and directories that are held to their size."""

from tests.cluster.cases.driver import POOL, driver_pods
from tests.cluster.cases.namespaces import Namespace
from tests.cluster.cases.objects import Use, claim, pod, shipped_class

BTRFS_POOL = f"{POOL}-btrfs"
SIZE_MIB = 64


def test_each_claim_has_its_volume_in_the_pool_that_its_class_names(namespace: Namespace) -> None:
    classes = {
        "default": shipped_class("ext4"),
        "image": shipped_class("btrfs-ext4"),
        "directory": shipped_class("btrfs-directory"),
    }
    namespace.start(
        *(pod(name, Use(name)) for name in classes),
        *(claim(name, each, f"{SIZE_MIB}Mi") for name, each in classes.items()),
    )
    for name in classes:
        namespace.shell(name, f"echo {name} > /data/file; sync")
    assert _claims(namespace, POOL) == {"default"}
    assert _claims(namespace, BTRFS_POOL) == {"image", "directory"}
    assert namespace.mount("image", "/data")[0] == "ext4"
    assert namespace.mount("directory", "/data")[0] == "btrfs"

    # What is in a directory outlives its pod, too, and so do its bounds.
    namespace.delete("pod/directory")
    namespace.start(pod("directory", Use("directory")))
    assert namespace.shell("directory", "cat /data/file") == "directory"
    error = namespace.shell_error("directory", "dd if=/dev/zero of=/data/much bs=1M count=1024")
    assert "Disk quota exceeded" in error
    written = int(namespace.shell("directory", "du -k -s /data").split()[0])
    assert 0.8 * SIZE_MIB * 1024 <= written <= SIZE_MIB * 1024


def _claims(namespace: Namespace, pool: str) -> set[str]:
    """The names of the namespace's claims that have volumes in a pool."""
    volumes = driver_pods(namespace.kubectl)[0].volumes(pool)
    of_claims = [each["claim"] for each in volumes]
    return {each["name"] for each in of_claims if each["namespace"] == namespace.name}
