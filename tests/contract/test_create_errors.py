"""CreateVolume refused: the right code, a message to act on, and nothing changed.

That nothing was made is checked by each bench at its end.
"""

from collections.abc import Mapping

import pytest

from csi.v1 import csi_pb2 as pb
from tests.contract import requests
from tests.contract.bench import Bench
from tests.contract.refusals import Code, refused
from tests.contract.requests import (
    GIB,
    MIB,
    Mode,
    filesystem,
    raw_block,
    required_topology,
    size_range,
)

pytestmark = pytest.mark.kernel

LARGEST = (1 << 63) - 1


def request(**fields: object) -> pb.CreateVolumeRequest:
    """A request that is fine but for the given fields."""
    message = requests.create_volume("refused")
    for field, value in fields.items():
        message.ClearField(field)  # type: ignore[arg-type]
        message.MergeFrom(pb.CreateVolumeRequest(**{field: value}))  # type: ignore[arg-type]
    return message


class TestNames:
    """The name: there, short, and without control characters."""

    def test_missing(self, bench: Bench) -> None:
        with refused(Code.INVALID_ARGUMENT, "name"):
            bench.send_create(request(name=""))

    @pytest.mark.parametrize("name", ["n" * 129, "ü" * 65])
    def test_longer_than_128_bytes(self, bench: Bench, name: str) -> None:
        with refused(Code.INVALID_ARGUMENT, "name", "128"):
            bench.send_create(request(name=name))

    @pytest.mark.parametrize(
        "code_point", [*range(0x09), 0x0B, 0x0C, *range(0x0E, 0x20), *range(0x7F, 0xA0)], ids=hex
    )
    def test_control_characters(self, bench: Bench, code_point: int) -> None:
        with refused(Code.INVALID_ARGUMENT, "name", f"U+{code_point:04X}"):
            bench.send_create(request(name=f"before{chr(code_point)}after"))


class TestCapabilities:
    """volume_capabilities: complete, of one sort, and for one node."""

    def test_missing(self, bench: Bench) -> None:
        with refused(Code.INVALID_ARGUMENT, "volume_capabilities"):
            bench.send_create(request(volume_capabilities=[]))

    def test_without_access_type(self, bench: Bench) -> None:
        capability = filesystem()
        capability.ClearField("mount")

        with refused(Code.INVALID_ARGUMENT, "volume_capabilities[0]", "access type"):
            bench.send_create(request(volume_capabilities=[capability]))

    def test_without_access_mode(self, bench: Bench) -> None:
        capability = filesystem()
        capability.ClearField("access_mode")

        with refused(Code.INVALID_ARGUMENT, "volume_capabilities[0]", "access_mode"):
            bench.send_create(request(volume_capabilities=[capability]))

    def test_with_an_access_mode_of_the_future(self, bench: Bench) -> None:
        capability = filesystem()
        capability.access_mode.ParseFromString(b"\x08\x63")  # mode: 99

        with refused(Code.INVALID_ARGUMENT, "volume_capabilities[0]", "access_mode"):
            bench.send_create(request(volume_capabilities=[capability]))

    @pytest.mark.parametrize(
        "mode",
        [
            Mode.MULTI_NODE_READER_ONLY,
            Mode.MULTI_NODE_SINGLE_WRITER,
            Mode.MULTI_NODE_MULTI_WRITER,
        ],
        ids=Mode.Mode.Name,
    )
    @pytest.mark.parametrize("access", ["mount", "block"])
    def test_for_several_nodes(self, bench: Bench, mode: Mode.Mode.ValueType, access: str) -> None:
        capability = filesystem(mode=mode) if access == "mount" else raw_block(mode)

        with refused(Code.INVALID_ARGUMENT, Mode.Mode.Name(mode)):
            bench.send_create(request(volume_capabilities=[capability]))

    def test_for_several_nodes_among_others(self, bench: Bench) -> None:
        capabilities = [filesystem(), filesystem(mode=Mode.MULTI_NODE_MULTI_WRITER)]

        with refused(Code.INVALID_ARGUMENT, "MULTI_NODE_MULTI_WRITER"):
            bench.send_create(request(volume_capabilities=capabilities))

    def test_block_and_mount_together(self, bench: Bench) -> None:
        with refused(Code.INVALID_ARGUMENT, "block", "mount"):
            bench.send_create(request(volume_capabilities=[filesystem(), raw_block()]))

    def test_two_filesystems_together(self, bench: Bench) -> None:
        with refused(Code.INVALID_ARGUMENT, "ext4", "xfs"):
            bench.send_create(request(volume_capabilities=[filesystem("ext4"), filesystem("xfs")]))

    @pytest.mark.parametrize("fs_type", ["ntfs", "ext4 -F", "../xfs", "EXT4"])
    def test_a_filesystem_that_is_not_made_here(self, bench: Bench, fs_type: str) -> None:
        with refused(Code.INVALID_ARGUMENT, fs_type, "ext4", "xfs", "btrfs"):
            bench.send_create(request(volume_capabilities=[filesystem(fs_type)]))

    @pytest.mark.parametrize(
        "flag",
        [
            "suid",
            "dev",
            "loop",
            "errors=panic",
            "journal_path=/dev/sda",
            "logdev=/dev/sda",
            "noatime,suid",
            "subvol=/",
            "subvolid=5",
            "user_subvol_rm_allowed",
            "uid=0",
            "",
            "remount",
        ],
    )
    def test_mount_flags_that_are_not_allowed(self, bench: Bench, flag: str) -> None:
        # A value may be a password, as flags of network filesystems have: only the key is told.
        with refused(Code.INVALID_ARGUMENT, f"mount flag '{flag.partition('=')[0]}"):
            bench.send_create(request(volume_capabilities=[filesystem(flags=["noatime", flag])]))

    def test_a_mount_flag_of_another_filesystem(self, bench: Bench) -> None:
        with refused(Code.INVALID_ARGUMENT, "allocsize", "ext4"):
            bench.send_create(
                request(volume_capabilities=[filesystem("ext4", flags=["allocsize=64k"])])
            )

    def test_mount_flags_of_more_than_4_kib_in_all(self, bench: Bench) -> None:
        flags = ["noatime"] * 600

        with refused(Code.INVALID_ARGUMENT, "mount_flags", "4096"):
            bench.send_create(request(volume_capabilities=[filesystem(flags=flags)]))

    def test_a_mount_group(self, bench: Bench) -> None:
        capability = filesystem()
        capability.mount.volume_mount_group = "1000"

        with refused(Code.INVALID_ARGUMENT, "volume_mount_group"):
            bench.send_create(request(volume_capabilities=[capability]))

    def test_a_directory_as_block_device(self, btrfs_bench: Bench) -> None:
        with refused(Code.INVALID_ARGUMENT, "directory", "block"):
            btrfs_bench.create(capability=raw_block(), parameters={"kind": "directory"})


class TestSizes:
    """capacity_range: a size that there can be."""

    @pytest.mark.parametrize(
        ("required", "limit", "names"),
        [
            (0, 0, ("required_bytes", "limit_bytes")),
            (-1, 0, ("required_bytes", "-1")),
            (0, -1, ("limit_bytes", "-1")),
            (64 * MIB, -4096, ("limit_bytes", "-4096")),
            (64 * MIB, 63 * MIB, ("limit_bytes", str(63 * MIB), str(64 * MIB))),
        ],
    )
    def test_no_range_at_all(
        self, bench: Bench, required: int, limit: int, names: tuple[str, ...]
    ) -> None:
        with refused(Code.INVALID_ARGUMENT, "capacity_range", *names):
            bench.send_create(request(capacity_range=size_range(required, limit)))

    @pytest.mark.parametrize("required", [21 * GIB, 1 << 50, LARGEST - 4095, LARGEST])
    def test_more_than_the_pool_can_ever_hold(self, bench: Bench, required: int) -> None:
        with refused(Code.OUT_OF_RANGE, "bytes"):
            bench.send_create(request(capacity_range=size_range(required)))

    def test_a_limit_below_the_least_size_of_the_filesystem(self, bench: Bench) -> None:
        message = request(
            volume_capabilities=[filesystem("xfs")], capacity_range=size_range(MIB, 200 * MIB)
        )

        with refused(Code.OUT_OF_RANGE, str(200 * MIB), str(300 * MIB)):
            bench.send_create(message)

    def test_a_range_between_two_sectors(self, bench: Bench) -> None:
        message = request(capacity_range=size_range(64 * MIB + 1, 64 * MIB + 4095))

        with refused(Code.OUT_OF_RANGE, str(64 * MIB + 1), "4096"):
            bench.send_create(message)


class TestParameters:
    """parameters: known keys and values, within 4 KiB."""

    @pytest.mark.parametrize(
        ("parameters", "names"),
        [
            ({"Kind": "image"}, ("'Kind'", "kind")),
            ({"fsType": "xfs"}, ("'fsType'",)),
            ({"csi.storage.k8s.iox/fstype": "xfs"}, ("csi.storage.k8s.iox/fstype",)),
            ({"kind": "block"}, ("kind", "'block'", "image", "directory")),
            ({"kind": ""}, ("kind", "image", "directory")),
            ({"enforceSize": "yes"}, ("enforceSize", "'yes'", "true", "false")),
            ({"allocation": "lazy"}, ("allocation", "'lazy'", "thin", "thick")),
            ({"csi.storage.k8s.io/fstype": "zfs"}, ("'zfs'", "ext4")),
        ],
        ids=str,
    )
    def test_unknown(
        self, bench: Bench, parameters: Mapping[str, str], names: tuple[str, ...]
    ) -> None:
        message = request(parameters=parameters, volume_capabilities=[filesystem("")])

        with refused(Code.INVALID_ARGUMENT, *names):
            bench.send_create(message)

    def test_a_pool_that_this_node_does_not_have(self, bench: Bench) -> None:
        """Another node may have it, and of all codes this one makes the scheduler look there."""
        with refused(Code.RESOURCE_EXHAUSTED, "pool", "'fast'", "default"):
            bench.send_create(request(parameters={"pool": "fast"}))

    def test_mutable_ones_that_are_not_known(self, bench: Bench) -> None:
        with refused(Code.INVALID_ARGUMENT, "mutable parameter", "'iops'"):
            bench.send_create(request(mutable_parameters={"iops": "100"}))

    def test_more_than_4_kib_of_them(self, bench: Bench) -> None:
        parameters = {f"csi.storage.k8s.io/{number}": "v" * 100 for number in range(40)}

        with refused(Code.INVALID_ARGUMENT, "parameters", "4096"):
            bench.send_create(request(parameters=parameters))

    def test_more_than_4_kib_of_secrets(self, bench: Bench) -> None:
        with refused(Code.INVALID_ARGUMENT, "secrets", "4096") as refusal:
            bench.send_create(request(secrets={"key": "hunter2" * 600}))
        assert "hunter2" not in refusal.message

    def test_a_directory_where_its_size_cannot_be_held(self, bench: Bench) -> None:
        with refused(Code.INVALID_ARGUMENT, "btrfs", "kind: image", "enforceSize"):
            bench.create(capability=filesystem(""), parameters={"kind": "directory"})


class TestTopologyLimits:
    """accessibility_requirements: not empty, keys and values of at most 63 bytes a part."""

    def test_empty(self, bench: Bench) -> None:
        with refused(Code.INVALID_ARGUMENT, "accessibility_requirements"):
            bench.create(topology=pb.TopologyRequirement())

    @pytest.mark.parametrize(
        ("key", "value"),
        [("k" * 64, "v"), (f"{'p' * 64}/node", "v"), (requests.TOPOLOGY_KEY, "v" * 64)],
    )
    def test_too_long(self, bench: Bench, key: str, value: str) -> None:
        place = pb.Topology(segments={key: value})

        with refused(Code.INVALID_ARGUMENT, "requisite[0].segments", "63"):
            bench.create(topology=required_topology(place))
