"""What happens to a volume between its creation and its end: found, listed, changed, deleted."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from csi.answers import Page
from csi.errors import InUse, OperationPending, Unavailable
from csi.model import Capability, Kind, LimitChanges, Parameters, SizeRange, Volume, VolumeRequest
from csi.pool import image
from csi.volumes import capabilities, paging, presence, sizes
from csi.volumes.creation import Creation
from csi.volumes.pools import Found, enter_volume, is_backed
from csi.volumes.tools import Tools

_ALLOCATION = {False: "thin", True: "thick"}


class Lifecycle:
    """The verbs of the Controller service on one volume."""

    def __init__(self, tools: Tools, creation: Creation) -> None:
        self._tools = tools
        self._creation = creation

    def create(self, request: VolumeRequest) -> Volume:
        """Makes a volume or finds it; see `Creation.create`."""
        return self._creation.create(request)

    def get(self, volume_id: str) -> Volume:
        """Returns the record of a volume.

        Raises:
            NotFound: There is none with that id.
        """
        return self._tools.pools.get_volume(volume_id).record

    def page(self, token: str, limit: int) -> Page[Volume]:
        """Returns volumes in the order of their creation, inline ones left out.

        Raises:
            BadToken: The token is none of ours.
        """
        return paging.page(
            [depot.pool.volumes for depot in self._tools.pools.depots],
            token,
            limit,
            lambda volume: volume.ephemeral is None,
        )

    def delete(self, volume_id: str) -> None:
        """Deletes a volume; its bytes are freed in the background. Unknown ones are no error.

        One that is still staged is waited for, a second at most: its unstage may be on its way.

        Raises:
            InUse: It is staged, mounted or attached on this node, or published to a node.
            OperationPending: It is being worked on, or a copy is made of it.
        """
        found = self._tools.pools.find_volume(volume_id)
        if found is None or found.record.ephemeral is not None:
            return
        depot, key = found.depot, found.key
        depot.pool.check_answers()
        if not found.record.publications:
            # What no workload writes to, by what is known here, is not staged: no look for that.
            self._tools.releases.wait(
                key,
                lambda: depot.ledger.is_live(key) and presence.look(depot.pool, key).anywhere,
            )
        self._tools.copies.cancel(key)
        with self._tools.locks.exclusive(f"volume:{found.key}", f"volume {volume_id}"):
            found = self._tools.pools.find_volume(volume_id)
            if found is not None:
                check_unused(found)
                self.discard(found)

    def discard(self, found: Found[Volume]) -> None:
        """Moves a volume that the caller has locked, and knows to be unused, to the trash."""
        with self._tools.allowances.released(found.depot.pool, found.record):
            found.depot.pool.volumes.discard(found.record)
        found.depot.ledger.remove(found.key)
        self._tools.allowances.later(found.record.lender_id)
        self._tools.reaper.wake()

    def expand(self, volume_id: str, size: SizeRange) -> Volume:
        """Makes room for a larger volume; the node grows what is in it.

        Raises:
            NotFound: There is no such volume.
            OutOfRange, NoRoom: The size does not fit, ever or now.
            OperationPending: It is being worked on or copied.
        """
        found = self._tools.pools.get_volume(volume_id)
        with self._tools.locks.exclusive(f"volume:{found.key}", f"volume {volume_id}"):
            return self.expand_locked(self._tools.pools.get_volume(volume_id), size)

    def expand_locked(self, found: Found[Volume], size: SizeRange) -> Volume:
        """Is `expand` for a caller who holds the volume's lock."""
        depot, volume = found
        if volume.copying:
            raise OperationPending(f"volume {volume.id} is still being copied; try again later")
        least_bytes = sizes.least_grown_bytes(volume.fs_type)
        target = sizes.choose_growth(size, volume.size_bytes, least_bytes=least_bytes)
        if target == volume.size_bytes:
            return volume
        depot.pool.check_answers()
        # The data grows first and the record last: a try that ends between the two is repeated.
        with depot.ledger.reserve(
            target, backed=is_backed(volume), present_bytes=volume.size_bytes
        ):
            with self._larger_data(found, target):
                grown = depot.pool.volumes.change(volume, size_bytes=target)
            enter_volume(depot, grown)
        return grown

    @contextlib.contextmanager
    def _larger_data(self, found: Found[Volume], size_bytes: int) -> Iterator[None]:
        """Makes room in a volume's data for a block that records it, or takes the room back."""
        depot, volume = found
        if volume.kind is Kind.IMAGE:
            thick = volume.parameters.thick
            with (
                depot.pool.volumes.opened(found.key) as folder,
                image.grown(folder, volume.size_bytes, size_bytes, thick=thick),
            ):
                yield
            return
        try:
            self._tools.allowances.ensure(depot, volume, size_bytes)
            yield
        except Unavailable:
            raise  # nobody knows what the record says
        except BaseException as error:
            self._take_back_limit(found, error)
            raise

    def _take_back_limit(self, found: Found[Volume], error: BaseException) -> None:
        try:
            self._tools.allowances.ensure(found.depot, found.record)
        except OSError as failure:
            raise Unavailable(
                f"volume {found.record.id} could not be grown ({error}), and its limit not be "
                f"taken back yet: {failure.strerror}"
            ) from error

    def modify(self, volume_id: str, changes: LimitChanges) -> None:
        """Changes the limits of a volume, also while pods use it; a repeat brings them into force.

        Raises:
            NotFound: There is no such volume.
            UnsupportedRequest: It is a directory. Nothing has changed.
            NotNow: Pods cannot be limited here. Nothing has changed.
            OperationPending: It is being worked on or copied.
            Unavailable: The kernel did not take them yet; the record has them.
        """
        found = self._tools.pools.get_volume(volume_id)
        self._tools.throttling.check(changes, found.record.kind)
        with self._tools.locks.exclusive(f"volume:{found.key}", f"volume {volume_id}"):
            depot, volume = self._tools.pools.get_volume(volume_id)
            if volume.copying:
                raise OperationPending(f"volume {volume.id} is still being copied; try again later")
            limits = volume.limits.replace(**changes)
            if limits != volume.limits:
                volume = depot.pool.volumes.change(volume, limits=limits)
            self._tools.throttling.change(Found(depot, volume))

    def unconfirmed(
        self, volume_id: str, wanted: Sequence[Capability], parameters: Parameters | None
    ) -> str:
        """Returns why a volume cannot be used as wanted, or nothing if it can.

        Raises:
            NotFound: There is no such volume.
        """
        found = self._tools.pools.get_volume(volume_id)
        reason = "" if parameters is None else _parameter_against(found, parameters)
        return reason or capabilities.reason_against(found.record, wanted)


def _parameter_against(found: Found[Volume], asked: Parameters) -> str:
    """Returns which parameter a volume was made with another value of, or nothing."""
    was = found.record.parameters.replace(pool=found.depot.pool.name)
    pairs = [
        ("kind", asked.kind, was.kind),
        ("pool", asked.pool or was.pool, was.pool),
        ("enforceSize", str(asked.enforce_size).lower(), str(was.enforce_size).lower()),
        ("allocation", _ALLOCATION[asked.thick], _ALLOCATION[was.thick]),
        ("mkfsOptions", asked.mkfs_options, was.mkfs_options),
    ]
    for name, wanted, present in pairs:
        if wanted != present:
            return f"parameter {name} is {wanted!r}, and the volume was made with {present!r}"
    return ""


def check_unused(found: Found[Volume]) -> None:
    """Checks that nobody uses a volume.

    Raises:
        InUse: Somebody does; the message says where.
    """
    volume = found.record
    if volume.publications:
        nodes = ", ".join(volume.publications)
        raise InUse(f"volume {volume.id} is published to {nodes}; unpublish it first")
    if presence.look(found.depot.pool, found.key).anywhere:
        raise InUse(
            f"volume {volume.id} is mounted or attached on this node; unpublish and unstage it "
            "first"
        )
