"""The paths that the kubelet makes and hands to a driver, made in the same places."""

import hashlib
from pathlib import Path

DRIVER_NAME = "local-path.csi.dev"


class Kubelet:
    """The folder of a kubelet, `/var/lib/kubelet` on most machines.

    Each method makes what the kubelet makes before it calls the driver, and no more: a staging
    path exists already, of a target only the parent does. Repeating a call changes nothing.
    """

    def __init__(self, directory: Path, driver_name: str = DRIVER_NAME) -> None:
        self.directory = directory
        self._plugins = directory / "plugins" / "kubernetes.io" / "csi"
        self._driver_name = driver_name

    def staging_path(self, volume_id: str) -> Path:
        """Where a filesystem volume is staged."""
        digest = hashlib.sha256(volume_id.encode()).hexdigest()
        return _made(self._plugins / self._driver_name / digest / "globalmount")

    def target_path(self, volume_name: str, pod_uid: str) -> Path:
        """Where a filesystem volume is published for a pod; the driver makes the directory."""
        volumes = self.directory / "pods" / pod_uid / "volumes" / "kubernetes.io~csi"
        return _made(volumes / volume_name) / "mount"

    def block_staging_path(self, volume_name: str) -> Path:
        """Where a raw block volume is staged."""
        return _made(self._plugins / "volumeDevices" / "staging" / volume_name)

    def block_target_path(self, volume_name: str, pod_uid: str) -> Path:
        """Where a raw block volume is published for a pod; the driver makes the file."""
        return _made(self._plugins / "volumeDevices" / "publish" / volume_name) / pod_uid


def _made(directory: Path) -> Path:
    directory.mkdir(mode=0o750, parents=True, exist_ok=True)
    return directory
