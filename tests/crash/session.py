"""A session with the driver over a recorded disk, and what each moment of it promises.

Before each call a promise is noted that leaves open what the call is about, and after its answer
one that says what was answered. So for a power cut at any moment the promise noted last tells what
has to be there.
"""

import contextlib
import itertools
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import grpc

from csi.v1 import csi_pb2 as pb
from tests.contract import requests
from tests.contract.bench import read_bytes, write_synced
from tests.contract.node_fixtures import entry_of
from tests.contract.refusals import Code, as_call
from tests.crash.lives import DATA_BYTES, Life, Sort
from tests.crash.world import ViolationError, World

LIMITS = {"writeIOPS": "5000"}


@dataclass(frozen=True)
class Promise:
    """What is promised of one volume or snapshot at one moment.

    Attributes:
        there: Whether it is there; None where a call has not been answered.
        size: The least size that it has.
        data: What was written to it and synced last, or None while that is being changed.
        limited: Whether it has been given limits.
    """

    there: bool | None = None
    size: int = 0
    data: bytes | None = None
    limited: bool = False


@dataclass
class Session:
    """A few volumes led through their lives.

    Attributes:
        moments: By the number of the note on the disk, what is promised of each object by its id.
        snapshots: The ids of snapshots among them.
    """

    world: World
    sort: Sort
    marks: Path
    moments: list[dict[str, Promise]] = field(default_factory=list)
    snapshots: set[str] = field(default_factory=set)

    def play(self) -> None:
        """Plays it all."""
        first = self._created(Life(self.world, self.sort))
        first.attach()
        first.stage()
        first.publish()
        self._write(first)
        if not self.sort.moments_in_use:
            first.take_down()
        snapshot = self._snapshot(first)
        if not self.sort.moments_in_use:
            first.bring_up()
        self._write(first)
        if not self.sort.grows_online:
            first.take_down()
        with self._promising(first.volume_id, size=self.sort.grown):
            first.expand()
        if self.sort.grows_online:
            first.grow()
        else:
            first.bring_up()  # grows it
        if self.sort.parameters.get("kind") != "directory":
            with self._promising(first.volume_id, limited=True):
                request = requests.modify(first.volume_id, LIMITS)
                self.world.driver.controller.ControllerModifyVolume(request)
        self._write(first)
        second = self._created(Life(self.world, self.sort))
        third = self._created(Life(self.world, self.sort, source=first.from_snapshot))
        with self._promising(third.volume_id, data=self._data_of(snapshot)):
            pass
        with self._promising(second.volume_id, there=False):
            second.delete()
        with self._promising(snapshot, there=False):
            first.delete_snapshots()
        first.forget_snapshots()
        first.take_down()

    def _created(self, life: Life) -> Life:
        life.create()
        self._note({life.volume_id: Promise(there=True, size=self.sort.size)})
        return life

    def _write(self, life: Life) -> None:
        before = self._now()[life.volume_id]
        self._note({life.volume_id: replace(before, data=None)})
        life.write()
        self._note({life.volume_id: replace(before, data=life.data)})

    def _snapshot(self, life: Life) -> str:
        life.snapshot()
        (snapshot_id,) = life.snapshot_ids
        self.snapshots.add(snapshot_id)
        self._note({snapshot_id: Promise(there=True, data=life.data)})
        return snapshot_id

    def _data_of(self, object_id: str) -> bytes | None:
        return self._now()[object_id].data

    @contextlib.contextmanager
    def _promising(self, object_id: str, **fields: object) -> Iterator[None]:
        before = self._now()[object_id]
        if "there" in fields:
            self._note({object_id: replace(before, there=None)})
        yield
        self._note({object_id: replace(before, **fields)})  # type: ignore[arg-type]

    def _now(self) -> dict[str, Promise]:
        return self.moments[-1] if self.moments else {}

    def _note(self, promises: dict[str, Promise]) -> None:
        self.moments.append(self._now() | promises)
        mark = os.open(self.marks, os.O_WRONLY)
        try:
            os.write(mark, str(len(self.moments) - 1).encode())
        finally:
            os.close(mark)


class Aftermath:
    """The same pool after a power cut, with a driver that has just been started over it."""

    def __init__(self, world: World, session: Session, mark: int) -> None:
        self._world = world
        self._session = session
        self._promises = session.moments[mark] if mark >= 0 else {}
        world.numbers = itertools.count(1000)  # names that the session had not

    def check(self) -> None:
        """Expects that all that was promised is there, and that what is there can be used.

        Raises:
            ViolationError: Something is missing, or is not as it was.
        """
        self._world.wait_for_background()
        self._world.expect_true_ledger()
        for object_id, promise in self._promises.items():
            if object_id in self._session.snapshots:
                self._check_snapshot(object_id, promise)
            else:
                self._check_volume(object_id, promise)
        self._use_and_delete_all()
        self._world.wait_for_background()
        self._world.expect_true_ledger()

    def _check_volume(self, volume_id: str, promise: Promise) -> None:
        found = self._find(volume_id)
        _expect_there(volume_id, promise, there=found is not None)
        if found is None or not promise.there:
            return
        if found.capacity_bytes < promise.size:
            raise ViolationError(f"{volume_id} has {found.capacity_bytes}, not {promise.size}")
        record = json.loads((entry_of(self._world.pool, volume_id) / "record.json").read_bytes())
        if promise.limited and not record.get("limits"):
            raise ViolationError(f"{volume_id} has lost its limits")
        self._expect_data(volume_id, promise.data)

    def _check_snapshot(self, snapshot_id: str, promise: Promise) -> None:
        controller = self._world.driver.controller
        answer = controller.ListSnapshots(requests.list_snapshots(snapshot_id=snapshot_id))
        _expect_there(snapshot_id, promise, there=bool(answer.entries))
        if not promise.there:
            return
        if not answer.entries[0].snapshot.ready_to_use:
            raise ViolationError(f"{snapshot_id} was ready and is not")
        source = requests.from_snapshot(snapshot_id)
        life = Life(self._world, self._session.sort, source=lambda: source)
        life.create()
        self._expect_data(life.volume_id, promise.data)

    def _expect_data(self, volume_id: str, data: bytes | None) -> None:
        life = Life(self._world, self._session.sort)
        life.volume_id = volume_id
        life.stage()
        life.publish()
        place = life.target()
        file = place if place.is_file() or place.is_block_device() else place / "data"
        if data is not None and read_bytes(file, DATA_BYTES) != data:
            raise ViolationError(f"{volume_id}: the data is not what was written and synced")
        if place.is_dir():
            write_synced(place / "probe", b"it takes writes")
        life.unpublish()
        life.unstage()

    def _use_and_delete_all(self) -> None:
        """What was made and never answered for has to be usable, or at least to go."""
        controller, call = self._world.driver.controller, self._world.call
        for snapshot in controller.ListSnapshots(requests.list_snapshots()).entries:
            request = requests.delete_snapshot(snapshot.snapshot.snapshot_id)
            call(partial(controller.DeleteSnapshot, request))
        for entry in controller.ListVolumes(requests.list_volumes()).entries:
            volume_id = entry.volume.volume_id
            if volume_id not in self._promises:
                self._expect_data(volume_id, None)
            unpublish = requests.controller_unpublish(volume_id)
            call(partial(controller.ControllerUnpublishVolume, unpublish))
            call(partial(controller.DeleteVolume, requests.delete_volume(volume_id)))

    def _find(self, volume_id: str) -> pb.Volume | None:
        request = requests.get_volume(volume_id)
        try:
            return self._world.driver.controller.ControllerGetVolume(request).volume
        except grpc.RpcError as error:
            if as_call(error).code() is not Code.NOT_FOUND:
                raise
        return None


def _expect_there(object_id: str, promise: Promise, *, there: bool) -> None:
    if promise.there is not None and there is not promise.there:
        was = "made" if promise.there else "deleted"
        raise ViolationError(f"{object_id} was {was}, and is {'' if there else 'not '}there")
