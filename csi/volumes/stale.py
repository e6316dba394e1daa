"""Loop devices that a driver before this one left behind: attached, and shown nowhere.

One that was killed between attaching and mounting leaves such a device, and so does whoever wipes
the kubelet's folder. It would keep its volume from being deleted until somebody unstages it, which
nobody has a reason to do.
"""

from __future__ import annotations

import logging
import os
import re
from typing import TYPE_CHECKING

from csi.linux import loop, mounts
from csi.pool.image import IMAGE_NAME
from csi.volumes.presence import loop_of

if TYPE_CHECKING:
    from csi.linux.loop_status import LoopDevice
    from csi.pool.pool import Pool

_log = logging.getLogger(__name__)

_ENTRY = re.compile(rf"/volumes/([^/]+)/{re.escape(IMAGE_NAME)}\Z")


def detach_stale(pool: Pool) -> None:
    """Detaches the loop devices over the pool's images that nobody uses, and no others.

    Left alone is what is mounted, also where only others see that, and what another loop device
    lies on, such as the kubelet's. What some process has open goes when that closes it.
    """
    bound = loop.bound()
    home = os.fstat(pool.fd).st_dev
    ours = [device for device in bound if device.backing_device == home]
    if not ours:
        return
    table = mounts.read_mounts()
    shown = {mount.source for mount in table} | {loop_of(mount) for mount in table}
    below = {(device.backing_device, device.backing_inode) for device in bound}
    for device in ours:
        if device.path in shown or not _is_image(pool, device):
            continue
        node = os.stat(device.path)
        if (node.st_dev, node.st_ino) in below:
            continue
        if loop.detach_unmounted(device.path):
            _log.info(
                "a loop device that nobody uses was detached",
                extra={"pool": pool.name, "device": device.path},
            )


def _is_image(pool: Pool, device: LoopDevice) -> bool:
    """Whether a device lies on the image of a volume of the pool.

    The path only says which volume that would be; device and inode say whether it is.
    """
    found = _ENTRY.search(loop.path_of_file(device.number))
    if found is None or pool.volumes.peek(found[1]) is None:
        return False
    try:
        file = pool.volumes.file_id(found[1], IMAGE_NAME)
    except OSError:
        return False
    return file == (device.backing_device, device.backing_inode)
