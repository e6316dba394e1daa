"""The driver without its wire: the verbs wired together, started and stopped."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence

from csi.answers import CapacityFigures, Stats
from csi.errors import DriverError, NotReady, PoolUnavailable
from csi.model import Capability, Parameters, PublishRequest, Settings, SizeRange
from csi.volumes import startup
from csi.volumes.allowances import Allowances
from csi.volumes.attachments import Attachments
from csi.volumes.changed_blocks import ChangedBlocks
from csi.volumes.conditions import Conditions
from csi.volumes.copies import Copies
from csi.volumes.creation import Creation
from csi.volumes.groups import Groups
from csi.volumes.inline import Inline
from csi.volumes.jobs import Jobs
from csi.volumes.lifecycle import Lifecycle
from csi.volumes.locks import Locks
from csi.volumes.pools import Depot, Pools
from csi.volumes.publishing import Publishing
from csi.volumes.reaper import Reaper
from csi.volumes.releases import Releases
from csi.volumes.room import room_for
from csi.volumes.snapshots import Snapshots
from csi.volumes.staging import Staging
from csi.volumes.throttling import Throttling
from csi.volumes.tools import Tools
from csi.volumes.usage import Usage
from csi.volumes.watch import Watch

_log = logging.getLogger(__name__)

_SWEEP_EVERY_S = 60.0
_TRY_WRITING_EVERY_S = 5.0
_HOLD_LIMITS_EVERY_S = 1.0


class Driver:
    """Everything behind the wire.

    Attributes:
        name: The plugin's name.
        node_id: This node.
        topology: The segments that say so to the scheduler.
        max_volumes: How many volumes may be published here; 0 is no limit.
        lifecycle, attachments, snapshots, groups, changed_blocks, conditions, mounts: The verbs.
    """

    def __init__(self, settings: Settings, depots: Sequence[Depot]) -> None:
        self.name = settings.driver_name
        self.node_id = settings.node_id
        self.topology = settings.topology
        self.max_volumes = settings.max_volumes
        self._settings = settings
        self._pools = Pools(depots)
        self._jobs = Jobs()
        self._allowances = Allowances(self._pools)
        self._reaper = Reaper([depot.pool for depot in depots], self._allowances.settle)
        self._ready = threading.Event()
        self._closing = threading.Event()
        self._failure = ""
        self._when_ready: Callable[[], None] = lambda: None
        self._watch = Watch(depots)
        self._threads: list[threading.Thread] = []

        locks = Locks()
        self._copies = Copies(self._pools, locks, self._jobs)
        self._throttling = Throttling()
        tools = Tools(
            settings,
            self._pools,
            locks,
            self._copies,
            self._allowances,
            self._reaper,
            self._throttling,
            Releases(),
        )
        creation = Creation(tools)
        self.lifecycle = Lifecycle(tools, creation)
        self.attachments = Attachments(tools)
        self.snapshots = Snapshots(tools)
        self.groups = Groups(tools)
        self.changed_blocks = ChangedBlocks(tools)
        self.conditions = Conditions(self._pools, self._watch, self._throttling)
        self._inline = Inline(tools, creation, self.lifecycle)
        self.mounts = Mounts(
            Staging(tools),
            Publishing(tools, self._inline),
            Usage(tools, self.lifecycle, self.conditions),
        )

    def start(self, when_ready: Callable[[], None] = lambda: None) -> None:
        """Begins to read the pools, in the background; `is_ready` tells when that is done.

        Then `when_ready` is called as well.
        """
        self._when_ready = when_ready
        for work in (self._recover, self._sweep, self._watch_pools, self._hold_limits):
            thread = threading.Thread(target=work, name=work.__name__, daemon=True)
            thread.start()
            self._threads.append(thread)

    def close(self) -> None:
        """Stops the background work. No call may be under way."""
        self._closing.set()
        for thread in self._threads:
            thread.join()
        self._jobs.close()
        self._reaper.close()

    def is_ready(self) -> bool:
        """Whether the pools are read and calls can be served."""
        return self._ready.is_set()

    def check(self) -> None:
        """Tells whether the driver can work, by what it found last; it touches no disk itself.

        Raises:
            PoolUnavailable: A pool cannot be read or written.
        """
        if self._failure:
            raise PoolUnavailable(self._failure)
        self._watch.check()

    def capacity(
        self, parameters: Parameters, segments: Mapping[str, str] | None
    ) -> CapacityFigures:
        """Returns what volumes with these parameters can have here; see `room_for`."""
        if not self.is_ready():
            raise NotReady("the driver is still reading its pools")
        return room_for(self._pools, self._settings, parameters, segments)

    def _recover(self) -> None:
        try:
            for depot in self._pools.depots:
                startup.recover(depot)
            self._allowances.ensure_all()
            self._throttling.resume(self._pools)
            self._copies.resume()
        except (OSError, DriverError) as error:
            self._failure = f"the pools cannot be read: {error}"
            _log.exception("the pools cannot be read")
            return
        self._reaper.start()
        self._ready.set()
        _log.info("ready", extra={"volumes": sum(1 for _ in self._pools.volumes())})
        self._when_ready()
        self._allowances.hold_tenants()

    def _watch_pools(self) -> None:
        while True:
            self._watch.look(counted=self.is_ready())
            if self._closing.wait(_TRY_WRITING_EVERY_S):
                return

    def _hold_limits(self) -> None:
        while not self._closing.wait(_HOLD_LIMITS_EVERY_S):
            self._throttling.hold()

    def _sweep(self) -> None:
        while not self._closing.wait(_SWEEP_EVERY_S):
            if self.is_ready():
                for work in (
                    self._inline.sweep,
                    self._copies.resume,
                    self._allowances.hold_tenants,
                    self._allowances.settle,
                ):
                    _try(work)


def _try(work: Callable[[], object]) -> None:
    """Does one thing of several, so that one that fails now does not keep the thread from all."""
    try:
        work()
    except (OSError, DriverError) as error:
        _log.warning("work in the background failed", extra={"reason": str(error)})


class Mounts:
    """The verbs of the Node service, under one name."""

    def __init__(self, staging: Staging, publishing: Publishing, usage: Usage) -> None:
        self._staging = staging
        self._publishing = publishing
        self._usage = usage

    def stage(self, volume_id: str, staging_path: str, capability: Capability) -> None:
        """See `Staging.stage`."""
        self._staging.stage(volume_id, staging_path, capability)

    def unstage(self, volume_id: str, staging_path: str) -> None:
        """See `Staging.unstage`."""
        self._staging.unstage(volume_id, staging_path)

    def publish(self, request: PublishRequest) -> None:
        """See `Publishing.publish`."""
        self._publishing.publish(request)

    def unpublish(self, volume_id: str, target_path: str) -> None:
        """See `Publishing.unpublish`."""
        self._publishing.unpublish(volume_id, target_path)

    def stats(self, volume_id: str, volume_path: str) -> Stats:
        """See `Usage.stats`."""
        return self._usage.stats(volume_id, volume_path)

    def expand(self, volume_id: str, volume_path: str, size: SizeRange) -> int:
        """See `Usage.expand`."""
        return self._usage.expand(volume_id, volume_path, size)
