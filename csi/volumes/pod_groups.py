"""Which control group a pod has: found by the pod's UID, wherever the kubelet keeps its pods.

The kubelet names a pod's group after its UID: `pod<uid>` where it makes groups itself, and
`…-pod<uid with _ for ->.slice` where systemd does. What is above differs: a class of service, a
root that the administrator chose. So the name is looked for, and the place remembered.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection

from csi.linux import cgroups

_GROUP = re.compile(r"pod([^.]+)|(?:.+-)?pod([^-]+)\.slice")
_FILESYSTEM_TARGET = re.compile(r"/pods/([^/]+)/volumes/")
_BLOCK_TARGET = re.compile(r"/volumeDevices/publish/[^/]+/([^/]+)/?$")


def pod_of(target_path: str) -> str:
    """Returns the UID of the pod that a target path is for; empty where it names none."""
    match = _FILESYSTEM_TARGET.search(target_path) or _BLOCK_TARGET.search(target_path)
    return match[1] if match else ""


def pod_of_group(name: str) -> str:
    """Returns the UID of the pod whose group has a name; empty where it is no pod's."""
    match = _GROUP.fullmatch(name)
    if match is None:
        return ""
    return match[1] or match[2].replace("_", "-")


class PodGroups:
    """Finds the groups of pods, and remembers them; for one thread at a time."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def find(self, hierarchy: cgroups.Hierarchy, pods: Collection[str]) -> dict[str, str]:
        """Returns the group of each pod that has one: it may not have been made yet."""
        self._known = {pod: group for pod, group in self._known.items() if os.path.isdir(group)}
        missing = {pod for pod in pods if pod not in self._known}
        if missing:
            for group in cgroups.groups_below(hierarchy.path):
                pod = pod_of_group(os.path.basename(group))
                if pod in missing:
                    self._known[pod] = group
        return {pod: self._known[pod] for pod in pods if pod in self._known}
