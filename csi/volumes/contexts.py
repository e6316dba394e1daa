"""SELinux contexts of mounts: a filesystem of its own can have one, a directory cannot.

A context belongs to a filesystem and not to one of its mounts. So it is for images, each of which
is a filesystem; and a driver that takes contexts serves nothing else, since the kubelet knows one
answer for all volumes of a driver.
"""

from __future__ import annotations

from csi.errors import AlreadyExists, NotNow, UnsupportedRequest
from csi.linux.mounts import Mount, knows_filesystem
from csi.model import Capability, Kind, Settings
from csi.selinux import is_context_option, is_same, parse_context_option, shown_context


def check_kind(kind: Kind, settings: Settings) -> None:
    """Checks that volumes of a kind are served at all.

    Raises:
        UnsupportedRequest: They are not.
    """
    if settings.selinux_mount and kind is Kind.DIRECTORY:
        raise UnsupportedRequest(
            "this driver mounts volumes with SELinux contexts (seLinuxMount in its configuration), "
            "and a directory shares the filesystem of its pool: use kind: image, or a driver "
            "without it"
        )


def take_context(capability: Capability, settings: Settings) -> Capability:
    """Returns a capability whose context is set apart from the mount flags.

    Where contexts are off it stays among them, and is refused like any flag that is not known.

    Raises:
        InvalidRequest: It is malformed.
        UnsupportedRequest: There are several.
    """
    given = [flag for flag in capability.mount_flags if is_context_option(flag)]
    if not given:
        return capability
    if not settings.selinux_mount:
        raise UnsupportedRequest(
            "mount flag context= is for SELinux, and seLinuxMount is off in the driver's "
            "configuration: turn it on there and in the CSIDriver object, or off in both"
        )
    if len(given) > 1:
        raise UnsupportedRequest("mount flag context= is given more than once")
    return capability.replace(
        mount_flags=tuple(flag for flag in capability.mount_flags if flag not in given),
        selinux_context=parse_context_option(given[0]),
    )


def check_same_context(mount: Mount, capability: Capability) -> None:
    """Checks that an image is mounted with the context that is asked for.

    Raises:
        AlreadyExists: It is mounted with another one, or with none.
    """
    there, asked = shown_context(mount.super_options), capability.selinux_context
    # The root of its filesystem is an image; a directory may lie in a pool mounted with a context.
    if mount.root == "/" and not is_same(there, asked):
        raise AlreadyExists(
            f"the volume is mounted at {mount.target} already, with SELinux context "
            f"{there or 'none'} and not {asked or 'none'}"
        )


def refusal_of(context: str) -> NotNow:
    """Returns what to say when the kernel did not mount a sound filesystem with a context."""
    if not knows_filesystem("selinuxfs"):
        return NotNow(
            "the volume is to be mounted with an SELinux context, and SELinux is off in this "
            "node's kernel"
        )
    return NotNow(
        f"the kernel did not mount the volume with SELinux context {context}: its policy does not "
        "have that context, or the volume is mounted on this node with another one"
    )
