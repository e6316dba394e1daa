"""What the verbs share: where volumes are, who works on them, and who does the work behind."""

from __future__ import annotations

from dataclasses import dataclass

from csi.model import Settings
from csi.volumes.allowances import Allowances
from csi.volumes.copies import Copies
from csi.volumes.locks import Locks
from csi.volumes.pools import Pools
from csi.volumes.reaper import Reaper
from csi.volumes.releases import Releases
from csi.volumes.throttling import Throttling


@dataclass(frozen=True, slots=True)
class Tools:
    """One of each for a driver.

    Attributes:
        settings: What is configured.
        pools: Where an id, a name or a class leads.
        locks: The objects that are being worked on.
        copies: Background copies.
        allowances: The limits of directories.
        reaper: What frees deleted bytes.
        throttling: The limits of volumes in use.
        releases: Volumes that are being let go of.
    """

    settings: Settings
    pools: Pools
    locks: Locks
    copies: Copies
    allowances: Allowances
    reaper: Reaper
    throttling: Throttling
    releases: Releases
