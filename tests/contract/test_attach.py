"""ControllerPublishVolume and ControllerUnpublishVolume: who has a volume, and who may not."""

from pathlib import Path

import pytest

from csi.v1 import csi_pb2 as pb
from tests.contract import requests
from tests.contract.bench import Bench
from tests.contract.refusals import Code, refused
from tests.contract.requests import (
    MULTI_WRITER,
    OLD_WRITER,
    READER,
    SINGLE_WRITER,
    UNKNOWN_VOLUME,
    Mode,
    filesystem,
    raw_block,
)
from tests.driver import NODE_ID, running_driver
from tests.kubelet import Kubelet

pytestmark = pytest.mark.kernel


def attach(
    bench: Bench,
    volume_id: str,
    capability: pb.VolumeCapability | None = None,
    *,
    node_id: str = NODE_ID,
    read_only: bool = False,
) -> None:
    bench.driver.controller.ControllerPublishVolume(
        requests.controller_publish(volume_id, capability, node_id=node_id, read_only=read_only)
    )


def detach(bench: Bench, volume_id: str, node_id: str = NODE_ID) -> None:
    bench.driver.controller.ControllerUnpublishVolume(
        requests.controller_unpublish(volume_id, node_id)
    )


def nodes(bench: Bench, volume_id: str) -> list[str]:
    """Which nodes have a volume."""
    answer = bench.driver.controller.ControllerGetVolume(requests.get_volume(volume_id))
    return list(answer.status.published_node_ids)


class TestPublish:
    """Giving a volume to this node."""

    def test_repeated_is_fine(self, bench: Bench) -> None:
        volume_id = bench.create().volume_id

        attach(bench, volume_id)
        attach(bench, volume_id)

        assert nodes(bench, volume_id) == [NODE_ID]

    def test_read_only_after_writable_and_the_other_way_round(self, bench: Bench) -> None:
        volume_id = bench.create().volume_id

        for first in (False, True):
            attach(bench, volume_id, read_only=first)
            with refused(Code.ALREADY_EXISTS, volume_id, NODE_ID):
                attach(bench, volume_id, read_only=not first)
            attach(bench, volume_id, read_only=first)
            detach(bench, volume_id)

    def test_in_another_mode(self, bench: Bench) -> None:
        volume_id = bench.create().volume_id
        attach(bench, volume_id, filesystem(mode=MULTI_WRITER))

        for mode in (SINGLE_WRITER, OLD_WRITER, READER):
            with refused(Code.ALREADY_EXISTS, volume_id, NODE_ID, "SINGLE_NODE_MULTI_WRITER"):
                attach(bench, volume_id, filesystem(mode=mode))

    @pytest.mark.parametrize("mode", [MULTI_WRITER, SINGLE_WRITER, READER], ids=Mode.Mode.Name)
    def test_of_a_volume_made_under_the_older_mode(
        self, bench: Bench, mode: Mode.Mode.ValueType
    ) -> None:
        volume_id = bench.create(capability=filesystem(mode=OLD_WRITER)).volume_id

        attach(bench, volume_id, filesystem(mode=mode))

        assert nodes(bench, volume_id) == [NODE_ID]

    def test_with_what_the_provisioner_adds_to_the_context(self, bench: Bench) -> None:
        volume = bench.create()
        request = requests.controller_publish(volume.volume_id)
        request.volume_context.update(volume.volume_context)
        request.volume_context["storage.kubernetes.io/csiProvisionerIdentity"] = "1-2-node"

        bench.driver.controller.ControllerPublishVolume(request)

        assert nodes(bench, volume.volume_id) == [NODE_ID]

    def test_of_an_unknown_volume(self, bench: Bench) -> None:
        for volume_id in (UNKNOWN_VOLUME, "../../etc", "a\0b"):
            with refused(Code.NOT_FOUND, repr(volume_id)):
                attach(bench, volume_id)

    @pytest.mark.parametrize("node_id", ["node-2", "NODE-1", "n" * 256])
    def test_to_a_foreign_node(self, bench: Bench, node_id: str) -> None:
        volume_id = bench.create().volume_id

        with refused(Code.NOT_FOUND, repr(node_id)):
            attach(bench, volume_id, node_id=node_id)
        assert nodes(bench, volume_id) == []

    def test_to_a_node_whose_id_is_over_the_limit(self, bench: Bench) -> None:
        with refused(Code.INVALID_ARGUMENT, "node_id", "256"):
            attach(bench, bench.create().volume_id, node_id="n" * 257)

    def test_required_fields_come_before_the_look_up(self, bench: Bench) -> None:
        with refused(Code.INVALID_ARGUMENT, "volume_id"):
            attach(bench, "")
        with refused(Code.INVALID_ARGUMENT, "node_id"):
            attach(bench, UNKNOWN_VOLUME, node_id="")
        request = requests.controller_publish(UNKNOWN_VOLUME)
        request.ClearField("volume_capability")
        with refused(Code.INVALID_ARGUMENT, "volume_capability"):
            bench.driver.controller.ControllerPublishVolume(request)
        with refused(Code.INVALID_ARGUMENT, "volume_capability"):
            attach(bench, UNKNOWN_VOLUME, pb.VolumeCapability(mount=filesystem().mount))

    def test_for_several_nodes(self, bench: Bench) -> None:
        with refused(Code.INVALID_ARGUMENT, "MULTI_NODE_MULTI_WRITER"):
            attach(bench, bench.create().volume_id, filesystem(mode=Mode.MULTI_NODE_MULTI_WRITER))

    def test_of_a_filesystem_as_block_device(self, bench: Bench) -> None:
        volume_id = bench.create().volume_id

        with refused(Code.FAILED_PRECONDITION, volume_id, "block device"):
            attach(bench, volume_id, raw_block())
        assert nodes(bench, volume_id) == []


class TestUnpublish:
    """Taking it back."""

    def test_repeated_is_fine(self, bench: Bench) -> None:
        volume_id = bench.create().volume_id
        attach(bench, volume_id)

        detach(bench, volume_id)
        assert nodes(bench, volume_id) == []
        detach(bench, volume_id)

    def test_from_every_node_where_none_is_named(self, bench: Bench) -> None:
        volume_id = bench.create().volume_id
        attach(bench, volume_id)

        detach(bench, volume_id, node_id="")

        assert nodes(bench, volume_id) == []

    def test_from_a_node_that_does_not_have_it(self, bench: Bench) -> None:
        volume_id = bench.create().volume_id
        attach(bench, volume_id)

        detach(bench, volume_id, node_id="node-2")

        assert nodes(bench, volume_id) == [NODE_ID]

    def test_of_a_volume_that_is_gone(self, bench: Bench) -> None:
        volume_id = bench.create().volume_id
        bench.delete(volume_id)

        detach(bench, volume_id)
        detach(bench, UNKNOWN_VOLUME)
        detach(bench, "../../etc")

    def test_of_no_volume_at_all(self, bench: Bench) -> None:
        with refused(Code.INVALID_ARGUMENT, "volume_id"):
            detach(bench, "")


class TestDelete:
    """A volume that a node has is not deleted under it."""

    def test_waits_until_the_volume_is_taken_back(self, bench: Bench) -> None:
        volume_id = bench.create().volume_id
        attach(bench, volume_id)

        with refused(Code.FAILED_PRECONDITION, volume_id, NODE_ID):
            bench.delete(volume_id)
        assert nodes(bench, volume_id) == [NODE_ID]

        detach(bench, volume_id)
        bench.delete(volume_id)

    def test_waits_until_the_volume_is_unstaged(self, bench: Bench) -> None:
        volume_id = bench.create().volume_id
        target = bench.use(volume_id)
        (target / "file").write_text("data")

        with refused(Code.FAILED_PRECONDITION, volume_id, "unstage"):
            bench.delete(volume_id)
        assert (target / "file").read_text() == "data"

        bench.release(volume_id)
        bench.delete(volume_id)

    def test_of_what_is_not_there_is_fine(self, bench: Bench) -> None:
        for volume_id in (UNKNOWN_VOLUME, "../../etc", "a\0b", "vol-"):
            bench.delete(volume_id)
        with refused(Code.INVALID_ARGUMENT, "volume_id"):
            bench.delete("")
        with refused(Code.INVALID_ARGUMENT, "volume_id", "128"):
            bench.delete("v" * 129)


class TestOverRestarts:
    """What only the driver knows is in its record."""

    def test_a_publication_is_still_there(self, bench: Bench) -> None:
        volume_id = bench.create().volume_id
        attach(bench, volume_id, read_only=True)

        bench.driver.kill()
        bench.driver.start()

        assert nodes(bench, volume_id) == [NODE_ID]
        with refused(Code.ALREADY_EXISTS, volume_id, "read-only"):
            attach(bench, volume_id)
        with refused(Code.FAILED_PRECONDITION, volume_id, NODE_ID):
            bench.delete(volume_id)

    def test_a_pool_that_moves_remembers_the_node_that_had_its_volumes(
        self, bench: Bench, folder: Path
    ) -> None:
        volume_id = bench.create().volume_id
        attach(bench, volume_id)
        bench.driver.stop_cleanly()
        moved = folder / "node-2"
        moved.mkdir()
        try:
            with running_driver(bench.pool, moved, arguments=["--node-id", "node-2"]) as driver:
                there = Bench(driver, Kubelet(moved), bench.pool)
                with refused(Code.FAILED_PRECONDITION, volume_id, repr(NODE_ID)):
                    attach(there, volume_id, node_id="node-2")

                detach(there, volume_id, node_id="")
                attach(there, volume_id, node_id="node-2")
                assert nodes(there, volume_id) == ["node-2"]
                with refused(Code.NOT_FOUND, repr(NODE_ID)):
                    attach(there, volume_id)
        finally:
            bench.driver.start()
