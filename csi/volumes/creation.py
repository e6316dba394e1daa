"""Making a volume: empty, or from a snapshot or another volume.

Made once and found again: the name leads to the same entry each time, and what is there is
compared with what is asked. A volume is built under a temporary name with room reserved for it;
only a copy that has to run in the background is committed before its contents are whole, and such
a volume cannot be staged until they are.
"""

from __future__ import annotations

import time

from csi.errors import (
    InvalidRequest,
    NotEnforceable,
    ProgramFailed,
    UnsupportedRequest,
)
from csi.mkfs_options import parse_mkfs_options
from csi.model import (
    NO_LIMITS,
    Access,
    Kind,
    Volume,
    VolumeRequest,
)
from csi.pool import directory, ids, image
from csi.pool.building import Site
from csi.pool.pool import Pool
from csi.volumes import capabilities, moments, sizes
from csi.volumes.agreement import check_same, check_topology
from csi.volumes.contexts import check_kind
from csi.volumes.moments import Origin, Taken
from csi.volumes.pools import Depot, Found, enter_volume
from csi.volumes.sources import get_origin, lender_of_copy, lock_of
from csi.volumes.tools import Tools


class Creation:
    """The verb that makes volumes."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    def create(self, request: VolumeRequest) -> Volume:
        """Makes the volume, or finds the one that an earlier try made.

        Raises:
            InvalidRequest: Something asked for cannot be had here at all.
            AlreadyExists: The name belongs to a volume made from another request.
            NotFound: There is no such source.
            OutOfRange, NoRoom: The size does not fit, ever or now; or the source is elsewhere.
            NotNow: The source cannot be copied in its present state.
            OperationPending: The volume or its source is being worked on.
        """
        capabilities.check_capabilities(request.capabilities, request.parameters.kind)
        check_kind(request.parameters.kind, self._tools.settings)
        self._tools.throttling.check(request.limits, request.parameters.kind)
        with self._tools.locks.exclusive(f"create:{request.name}", f"volume {request.name!r}"):
            found = self._tools.pools.find_volume_name(request.name)
            if found is not None:
                return self._found(found, request)
            check_topology(request, self._tools.settings.topology)
            source = request.source
            origin = None if source is None else get_origin(self._tools.pools, source)
            depot = self._depot(request, origin)
            key = ids.key_for(depot.pool.uuid, request.name)
            shared = [] if origin is None else [lock_of(origin)]
            what = f"volume {request.name!r} or its source"
            with self._tools.locks.many([f"volume:{key}"], shared, what) as hold:
                if source is None:
                    return self._create_empty(depot, key, request)
                # It may have gone before it was locked.
                origin = get_origin(self._tools.pools, source)
                later = origin.needs_background_copy(0)
                volume = self._create_from(depot, key, request, origin, later=later)
                if later:
                    self._tools.copies.start_volume(depot, volume, origin, hold.hand_over())
                return volume

    def _found(self, found: Found[Volume], request: VolumeRequest) -> Volume:
        check_same(found, request, self._tools.settings.topology)
        if found.record.copying:
            self._tools.copies.ensure_volume(found.depot, found.record)
            return found.record
        with self._tools.locks.shared(f"volume:{found.key}", f"volume {request.name!r}"):
            return self._tools.pools.get_volume(found.record.id).record

    # --- building --------------------------------------------------------------------------

    def _create_empty(self, depot: Depot, key: str, request: VolumeRequest) -> Volume:
        volume = self._plan(depot, request, fs_type=self._filesystem(request), least_bytes=0)
        with (
            depot.ledger.reserve(volume.size_bytes, backed=_will_back(volume)),
            depot.pool.volume_site(key) as site,
        ):
            if volume.kind is Kind.IMAGE:
                _create_image(volume, site)
            else:
                volume = _create_directory(depot.pool, volume, site)
            return self._commit(depot, volume, site)

    def _create_from(
        self, depot: Depot, key: str, request: VolumeRequest, origin: Origin, *, later: bool
    ) -> Volume:
        fs_type = self._filesystem_of_copy(request, origin)
        least_bytes = origin.record.size_bytes
        volume = self._plan(depot, request, fs_type=fs_type, least_bytes=least_bytes)
        volume = volume.replace(copying=later)
        with (
            depot.ledger.reserve(volume.size_bytes, backed=_will_back(volume)),
            depot.pool.volume_site(key) as site,
        ):
            taken = Taken(volume.created_ns)
            if volume.kind is Kind.DIRECTORY:
                taken = moments.take_directory(
                    origin,
                    site.fd,
                    volume.size_bytes,
                    read_only=False,
                    limited=volume.parameters.enforce_size,
                )
            elif not later:
                taken = moments.take_image(origin, site.fd, volume.size_bytes, 0)
                if volume.parameters.thick:
                    image.preallocate_image(site.fd, volume.size_bytes)
            else:
                image.start_copy(site.fd)
            volume = volume.replace(
                borrowed_bytes=taken.shared_bytes,
                lender_id=lender_of_copy(origin),
                quota_number=taken.quota_number,
            )
            volume = self._commit(depot, volume, site)
        self._tools.allowances.ensure_lender(volume.lender_id)
        return volume

    def _commit(self, depot: Depot, volume: Volume, site: Site) -> Volume:
        depot.pool.volumes.commit(site, volume)
        enter_volume(depot, volume)
        return volume

    def _plan(
        self, depot: Depot, request: VolumeRequest, *, fs_type: str, least_bytes: int
    ) -> Volume:
        """Returns the record that the volume will have, its size chosen and checked."""
        parameters = request.parameters
        if parameters.kind is Kind.DIRECTORY:
            self._check_enforceable(depot, request)
        copied_bytes = least_bytes if request.source is not None else 0
        least_bytes = max(least_bytes, sizes.minimum_bytes(fs_type))
        default_bytes = self._tools.settings.default_size_bytes
        size_bytes = sizes.choose_size(
            request.size, least_bytes=least_bytes, default_bytes=default_bytes
        )
        if copied_bytes and size_bytes > copied_bytes:  # it will be grown at staging
            least_bytes = max(least_bytes, sizes.least_grown_bytes(fs_type))
            size_bytes = sizes.choose_size(
                request.size, least_bytes=least_bytes, default_bytes=default_bytes
            )
        return Volume(
            id=ids.new_id(ids.Sort.VOLUME, depot.pool.uuid, request.name),
            name=request.name,
            created_ns=time.time_ns(),
            kind=parameters.kind,
            access=request.capabilities[0].access,
            size_bytes=size_bytes,
            fs_type=fs_type,
            parameters=parameters,
            capabilities=request.capabilities,
            limits=NO_LIMITS.replace(**request.limits),
            source=request.source,
            claim=request.claim,
            ephemeral=request.ephemeral,
        )

    def _filesystem(self, request: VolumeRequest) -> str:
        if request.parameters.kind is Kind.DIRECTORY or _is_block(request):
            _check_no_mkfs_options(request)
            return ""
        fs_type = capabilities.choose_filesystem(
            request.capabilities, request.parameters.fs_type, self._tools.settings.default_fs_type
        )
        capabilities.check_mount_flags(request.capabilities, Kind.IMAGE, fs_type)
        parse_mkfs_options(request.parameters.mkfs_options, fs_type)
        return fs_type

    def _filesystem_of_copy(self, request: VolumeRequest, origin: Origin) -> str:
        """Returns the filesystem that a copy holds; a raw device may turn out to hold one."""
        if request.parameters.kind is Kind.DIRECTORY or _is_block(request):
            _check_no_mkfs_options(request)
            return ""
        present = origin.record.fs_type
        if not present:
            with origin.image() as descriptor:
                present = image.probe_image(descriptor)
        asked = capabilities.choose_filesystem(request.capabilities, "", present)
        if asked != present or not present:
            raise InvalidRequest(
                f"the source {origin.record.id} holds {present or 'no known filesystem'}, "
                f"and {asked or 'a filesystem'} was asked for"
            )
        capabilities.check_mount_flags(request.capabilities, Kind.IMAGE, present)
        return present

    # --- checking --------------------------------------------------------------------------

    def _check_enforceable(self, depot: Depot, request: VolumeRequest) -> None:
        if request.parameters.enforce_size and not depot.pool.features.directory_quota:
            raise NotEnforceable(
                f"pool {depot.pool.name!r} cannot hold a directory to its size (that takes btrfs "
                "with simple quotas, or xfs or ext4 mounted with prjquota): use kind: image, or "
                'say enforceSize: "false" in the StorageClass if the size need not be enforced'
            )

    def _depot(self, request: VolumeRequest, origin: Origin | None) -> Depot:
        named = request.parameters.pool
        if origin is None:
            return self._tools.pools.get_named(named)
        if origin.record.kind is not request.parameters.kind:
            raise UnsupportedRequest(
                f"the source {origin.record.id} is kept as {origin.record.kind}, and the "
                f"StorageClass asks for kind {request.parameters.kind}"
            )
        if named and named != origin.pool.name:
            raise UnsupportedRequest(
                f"the source {origin.record.id} is in pool {origin.pool.name!r}; a copy of it "
                f"cannot be made in pool {named!r}"
            )
        return self._tools.pools.get_named(origin.pool.name)


def _create_directory(pool: Pool, volume: Volume, site: Site) -> Volume:
    directory.create(site.fd, subvolume=pool.features.subvolumes)
    if pool.limits is not None and volume.parameters.enforce_size:
        number = pool.limits.hold_new(site.fd, volume.size_bytes)
        volume = volume.replace(quota_number=number)
    with directory.opened_data(site.fd) as data:
        pool.durability.inside(data)
    return volume


def _create_image(volume: Volume, site: Site) -> None:
    given = volume.parameters.mkfs_options
    options = parse_mkfs_options(given, volume.fs_type) if given else ()
    try:
        image.create_image(
            site.fd,
            volume.size_bytes,
            volume.fs_type,
            thick=volume.parameters.thick,
            options=options,
        )
    except ProgramFailed as error:
        if not options or error.status is None:
            raise
        raise UnsupportedRequest(
            f"the filesystem cannot be made with mkfsOptions {given!r}: {error}"
        ) from error


def _check_no_mkfs_options(request: VolumeRequest) -> None:
    if request.parameters.mkfs_options:
        raise UnsupportedRequest(
            "mkfsOptions is for volumes that are made with a filesystem; a directory or a block "
            "device is made without one"
        )


def _is_block(request: VolumeRequest) -> bool:
    return request.capabilities[0].access is Access.BLOCK


def _will_back(volume: Volume) -> bool:
    return volume.kind is Kind.IMAGE or volume.parameters.enforce_size
