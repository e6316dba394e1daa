"""Settings in maps of strings: what is known, what is refused, and sizes as Kubernetes has them."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi.errors import InvalidRequest
from csi.model import Claim, InlineVolume, Kind, Parameters, SnapshotParameters
from csi.quantity import parse_size
from csi.rpc import parameters

POD = {"csi.storage.k8s.io/ephemeral": "true", "csi.storage.k8s.io/pod.uid": "uid"}


@pytest.mark.parametrize(
    ("given_parameters", "understood"),
    [
        ({}, Parameters()),
        ({"kind": "image"}, Parameters(kind=Kind.IMAGE)),
        ({"kind": "directory"}, Parameters(kind=Kind.DIRECTORY)),
        ({"pool": "fast"}, Parameters(pool="fast")),
        ({"enforceSize": "false"}, Parameters(enforce_size=False)),
        ({"enforceSize": "true"}, Parameters(enforce_size=True)),
        ({"allocation": "thick"}, Parameters(thick=True)),
        ({"allocation": "thin"}, Parameters(thick=False)),
        ({"csi.storage.k8s.io/fstype": "btrfs"}, Parameters(fs_type="btrfs")),
        ({"csi.storage.k8s.io/anything-the-sidecars-add": "x"}, Parameters()),
    ],
)
def test_parameters(given_parameters: dict[str, str], understood: Parameters) -> None:
    assert parameters.volume_parameters(given_parameters) == understood


@pytest.mark.parametrize(
    ("given_parameters", "message"),
    [
        (
            {"colour": "red"},
            "known are allocation, enforceSize, kind, mkfsOptions, pool, csi.storage.k8s.io/fstype",
        ),
        ({"colour": "red"}, "parameter 'colour' is not known; "),
        ({"Kind": "image"}, "parameter 'Kind' is not known"),
        ({"fstype": "xfs"}, "parameter 'fstype' is not known"),
        ({"": ""}, "parameter '' is not known"),
        ({"kind": ""}, "parameter kind is ''; it must be image or directory"),
        ({"kind": "Image"}, "parameter kind is 'Image'; it must be image or directory"),
        ({"enforceSize": "no"}, "parameter enforceSize is 'no'; it must be true or false"),
        ({"allocation": "full"}, "parameter allocation is 'full'; it must be thin or thick"),
    ],
)
def test_bad_parameters(given_parameters: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parameters.volume_parameters(given_parameters)
    assert message in str(caught.value)


def test_claim() -> None:
    assert parameters.claim({}) == Claim()
    assert parameters.claim({"csi.storage.k8s.io/pvc/name": "c"}) == Claim(name="c")


def test_limits() -> None:
    assert parameters.limit_changes({}) == {}
    assert parameters.limit_changes({"csi.storage.k8s.io/pvc/name": "claim"}) == {}
    assert parameters.limit_changes(
        {
            "readIOPS": "500",
            "writeIOPS": "1k",
            "readBandwidth": "20Mi",
            "writeBandwidth": "1.5M",
            "csi.storage.k8s.io/pv/name": "pv",
        }
    ) == {
        "read_iops": 500,
        "write_iops": 1000,
        "read_bandwidth_bytes": 20 << 20,
        "write_bandwidth_bytes": 1_500_000,
    }


@pytest.mark.parametrize("text", ["0", "max", "0Mi"])
@pytest.mark.parametrize(
    ("key", "field"), [("readIOPS", "read_iops"), ("writeBandwidth", "write_bandwidth_bytes")]
)
def test_no_limit(key: str, field: str, text: str) -> None:
    assert parameters.limit_changes({key: text}) == {field: 0}


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("readIOPS", "10"),
        ("writeIOPS", "4294967295"),
        ("readBandwidth", "64Ki"),
        ("writeBandwidth", "9223372036854775807"),
    ],
)
def test_the_bounds_of_limits_are_allowed(key: str, text: str) -> None:
    assert parameters.limit_changes({key: text})


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("readIOPS", ""),
        ("readIOPS", "9"),
        ("readIOPS", "4294967296"),
        ("writeIOPS", "-100"),
        ("writeIOPS", "100/s"),
        ("writeIOPS", "1e3"),
        ("writeIOPS", "\N{ARABIC-INDIC DIGIT ONE}00"),
        ("readBandwidth", "20MiB"),
        ("readBandwidth", "20Mi/s"),
        ("readBandwidth", "20 Mi"),
        ("readBandwidth", "65535"),
        ("writeBandwidth", "9223372036854775808"),
        ("writeBandwidth", "MAX"),
        ("writeBandwidth", "none"),
    ],
)
def test_bad_limits(key: str, text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parameters.limit_changes({"writeIOPS": "100", key: text})
    assert f"mutable parameter {key} is {text!r}; it must be " in str(caught.value)


@pytest.mark.parametrize("key", ["iops", "readiops", "readIOPS ", "pool", ""])
def test_unknown_limits(key: str) -> None:
    with pytest.raises(InvalidRequest, match="is not known; known are readIOPS, writeIOPS, readB"):
        parameters.limit_changes({key: "100"})


@pytest.mark.parametrize(("text", "seconds"), [("1", 1.0), ("0.25", 0.25), ("60", 60.0)])
def test_frozen_copy(text: str, seconds: float) -> None:
    understood = parameters.snapshot_parameters(
        {"frozenCopySeconds": text, "csi.storage.k8s.io/volumesnapshot/name": "s"}
    )
    assert understood == SnapshotParameters(frozen_copy_s=seconds)


def test_no_frozen_copy() -> None:
    assert parameters.snapshot_parameters({}) == SnapshotParameters()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "0.0",
        "-1",
        "60.1",
        "61",
        "nan",
        "inf",
        "1e1",
        " 1",
        "1s",
        "9" * 400,
        "\N{ARABIC-INDIC DIGIT ONE}",
    ],
)
def test_bad_frozen_copy(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"frozenCopySeconds is .* above 0 and at most 60"):
        parameters.snapshot_parameters({"frozenCopySeconds": text})


@pytest.mark.parametrize("mark", [{}, {"csi.storage.k8s.io/ephemeral": "false"}])
def test_other_volumes_are_not_inline(mark: dict[str, str]) -> None:
    assert parameters.inline_volume({"kind": "image", "unknown": "x", **mark}) is None


def test_inline_volume() -> None:
    context = {
        **POD,
        "csi.storage.k8s.io/pod.name": "pod",
        "csi.storage.k8s.io/pod.namespace": "space",
        "csi.storage.k8s.io/serviceAccount.name": "default",
        "csi.storage.k8s.io/serviceAccount.tokens": "{}",
        "size": "1.5Gi",
        "fsType": "xfs",
        "class": "scratch",
    }
    assert parameters.inline_volume(context) == InlineVolume(
        pod_uid="uid",
        claim=Claim(namespace="space", name="pod"),
        size_bytes=3 << 29,
        fs_type="xfs",
        class_name="scratch",
    )
    assert parameters.inline_volume(POD) == InlineVolume(pod_uid="uid")


@pytest.mark.parametrize(
    ("context", "message"),
    [
        ({"pool": "fast"}, "volume attribute 'pool' is not known; known are class, fsType, size"),
        ({"kind": "directory"}, "volume attribute 'kind' is not known"),
        ({"size": "0"}, "volume attribute size is 0; it must be above 0"),
        ({"size": "much"}, "volume attribute size is 'much'; it must be a size such as 1Gi"),
        ({"csi.storage.k8s.io/pod.uid": ""}, "podInfoOnMount: true"),
    ],
)
def test_bad_inline_volume(context: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parameters.inline_volume({**POD, **context})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("1073741824", 1 << 30),
        ("1Ki", 1 << 10),
        ("1k", 1000),
        ("500M", 500_000_000),
        ("1Mi", 1 << 20),
        ("1Gi", 1 << 30),
        ("2G", 2_000_000_000),
        ("1Ti", 1 << 40),
        ("1T", 10**12),
        ("1P", 10**15),
        ("1Pi", 1 << 50),
        ("1E", 10**18),
        ("7Ei", 7 << 60),
        ("0.5Gi", 1 << 29),
        ("0.1Ki", 103),
        ("9223372036854775807", (1 << 63) - 1),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text, "size") == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "0Gi",
        "-1",
        "+1",
        "1 Gi",
        "1gi",
        "1K",
        "1GiB",
        "1e3",
        "1.",
        ".5",
        "Gi",
        "8Ei",
        "9223372036854775808",
        "9" * 400,
        "1\n",
        "\N{ARABIC-INDIC DIGIT ONE}",
        "nan",
        "100m",
        "0x10",
    ],
)
def test_bad_sizes(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^size is "):
        parse_size(text, "size")


@given(st.text(max_size=24))
def test_any_text_is_a_size_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidRequest):
        assert 0 < parse_size(text, "size") < 1 << 63
