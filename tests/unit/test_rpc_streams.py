"""Calls that answer with many messages: their parts, errors, end, place and line in the log."""

from __future__ import annotations

import itertools
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest

from csi.answers import ByteRange
from csi.errors import NotFound, NotNow, OutOfRange
from csi.observe.logs import JsonLines
from csi.rpc.server import Server
from csi.rpc.snapshot_metadata import RANGES_A_MESSAGE
from csi.v1 import csi_pb2
from tests.unit.test_rpc_fake import (
    CALL_TIMEOUT_S,
    GIB,
    Call,
    Client,
    FakeDriver,
    captured_log,
    connected,
    served,
)

DELETE = csi_pb2.DeleteVolumeRequest(volume_id="vol-1")


class Running(NamedTuple):
    driver: FakeDriver
    client: Client


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    driver = FakeDriver()
    with served(driver, tmp_path) as client:
        yield Running(driver, client)


def numbered(count: int) -> list[ByteRange]:
    return [ByteRange(number * 8192, 4096) for number in range(count)]


def endless() -> Iterator[ByteRange]:
    return (ByteRange(number * 8192, 4096) for number in itertools.count())


def allocated(max_results: int = 0, start: int = 0) -> csi_pb2.GetMetadataAllocatedRequest:
    return csi_pb2.GetMetadataAllocatedRequest(
        snapshot_id="snap-1", max_results=max_results, starting_offset=start
    )


def delta(max_results: int = 0, start: int = 0) -> csi_pb2.GetMetadataDeltaRequest:
    return csi_pb2.GetMetadataDeltaRequest(
        base_snapshot_id="snap-1",
        target_snapshot_id="snap-2",
        max_results=max_results,
        starting_offset=start,
    )


def lines(records: list[logging.LogRecord]) -> list[dict[str, Any]]:
    return [json.loads(JsonLines().format(record)) for record in records]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + CALL_TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("count", "asked", "parts"),
    [
        (0, 0, [0]),
        (1, 0, [1]),
        (5, 2, [2, 2, 1]),
        (4, 2, [2, 2]),
        (3, 1, [1, 1, 1]),
        (RANGES_A_MESSAGE + 1, 0, [RANGES_A_MESSAGE, 1]),
        (RANGES_A_MESSAGE + 1, 1 << 30, [RANGES_A_MESSAGE, 1]),
    ],
)
def test_ranges_come_in_messages(
    running: Running, count: int, asked: int, parts: list[int]
) -> None:
    running.driver.script.ranges = numbered(count)

    metadata = running.client.metadata
    for answers in (
        list(metadata.GetMetadataAllocated(allocated(asked, start=5), timeout=CALL_TIMEOUT_S)),
        list(metadata.GetMetadataDelta(delta(asked, start=6), timeout=CALL_TIMEOUT_S)),
    ):
        assert [len(answer.block_metadata) for answer in answers] == parts
        assert [
            (block.byte_offset, block.size_bytes)
            for answer in answers
            for block in answer.block_metadata
        ] == numbered(count)
        for answer in answers:
            assert answer.volume_capacity_bytes == GIB
            assert answer.block_metadata_type == csi_pb2.BlockMetadataType.VARIABLE_LENGTH
            assert answer.ByteSize() < 1 << 20
    assert running.driver.calls == [
        Call("allocated", ("snap-1", 5)),
        Call("delta", ("snap-1", "snap-2", 6)),
    ]
    assert running.driver.script.streams == 0


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotFound("no such snapshot"), grpc.StatusCode.NOT_FOUND),
        (OutOfRange("behind the end"), grpc.StatusCode.OUT_OF_RANGE),
        (NotNow("no reflink"), grpc.StatusCode.FAILED_PRECONDITION),
    ],
)
def test_an_error_before_the_first_message(
    running: Running, error: Exception, code: grpc.StatusCode
) -> None:
    running.driver.script.error = error
    with captured_log(logging.INFO) as records, pytest.raises(grpc.RpcError) as caught:
        list(running.client.metadata.GetMetadataDelta(delta()))

    assert caught.value.code() is code
    assert caught.value.details() == str(error)
    (line,) = lines(records)
    assert line["method"] == "GetMetadataDelta"
    assert (line["code"], line["error"]) == (code.name, str(error))
    assert (line["base_snapshot_id"], line["target_snapshot_id"]) == ("snap-1", "snap-2")


def test_an_error_behind_some_messages(running: Running) -> None:
    script = running.driver.script
    script.ranges = numbered(5)
    script.late_error = OSError(5, "FIEMAP")
    with captured_log(logging.INFO) as records:
        stream = running.client.metadata.GetMetadataAllocated(allocated(2))
        assert [len(next(stream).block_metadata) for _ in range(2)] == [2, 2]
        with pytest.raises(grpc.RpcError) as caught:
            next(stream)

    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert script.streams == 0
    (line,) = lines(records)
    assert line["code"] == "UNAVAILABLE"
    assert "FIEMAP" in line["exception"]


def test_a_surprise_behind_some_messages_tells_the_caller_nothing(running: Running) -> None:
    script = running.driver.script
    script.ranges = numbered(2)
    script.late_error = ValueError("something inside")
    with pytest.raises(grpc.RpcError) as caught:
        list(running.client.metadata.GetMetadataAllocated(allocated(2)))

    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "inside" not in (caught.value.details() or "")


def test_a_stream_that_ends_well_is_one_line(running: Running) -> None:
    running.driver.script.ranges = numbered(3)
    with captured_log(logging.INFO) as records:
        list(running.client.metadata.GetMetadataAllocated(allocated(1)))

    (line,) = lines(records)
    assert (line["msg"], line["snapshot_id"]) == ("GetMetadataAllocated OK", "snap-1")
    assert line["duration_ms"] > 0


def test_a_caller_who_cancels_ends_it(running: Running) -> None:
    script = running.driver.script
    script.ranges = endless()
    with captured_log(logging.INFO) as records:
        stream = running.client.metadata.GetMetadataDelta(delta(10))
        next(stream)
        assert script.streams == 1
        stream.cancel()
        wait_for(lambda: script.streams == 0)
        wait_for(lambda: bool(records))

    (line,) = lines(records)
    assert (line["level"], line["code"]) == ("info", "CANCELLED")
    assert line["target_snapshot_id"] == "snap-2"


def test_a_connection_that_is_lost_ends_it(running: Running, tmp_path: Path) -> None:
    script = running.driver.script
    script.ranges = endless()
    with connected(tmp_path / "csi.sock") as other:
        next(other.metadata.GetMetadataAllocated(allocated(10)))
        assert script.streams == 1

    wait_for(lambda: script.streams == 0)


def test_a_deadline_ends_it(running: Running) -> None:
    script = running.driver.script
    script.ranges = endless()
    with pytest.raises(grpc.RpcError) as caught:
        for _ in running.client.metadata.GetMetadataAllocated(allocated(10), timeout=0.3):
            pass

    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    wait_for(lambda: script.streams == 0)


def test_a_stream_keeps_its_place_until_it_ends(tmp_path: Path) -> None:
    driver = FakeDriver()
    driver.script.ranges = endless()
    path = tmp_path / "csi.sock"
    server = Server(driver, str(path), workers=3, reserve=2)
    server.start()
    try:
        with connected(path) as client:
            stream = client.metadata.GetMetadataAllocated(allocated(10))
            next(stream)
            for call in (
                lambda: client.controller.DeleteVolume(DELETE),
                lambda: next(client.metadata.GetMetadataDelta(delta())),
            ):
                with pytest.raises(grpc.RpcError) as caught:
                    call()
                assert caught.value.code() is grpc.StatusCode.ABORTED
            assert client.identity.Probe(csi_pb2.ProbeRequest()).ready.value

            stream.cancel()
            wait_for(lambda: driver.script.streams == 0)
            client.controller.DeleteVolume(DELETE)
    finally:
        server.stop(CALL_TIMEOUT_S)


def test_stop_ends_a_stream_whose_caller_takes_nothing(tmp_path: Path) -> None:
    driver = FakeDriver()
    driver.script.ranges = endless()
    path = tmp_path / "csi.sock"
    server = Server(driver, str(path))
    server.start()
    before = threading.active_count()
    with connected(path) as client:
        stream = client.metadata.GetMetadataAllocated(allocated())
        next(stream)
        server.stop(0.2)
        with pytest.raises(grpc.RpcError):
            list(stream)
    wait_for(lambda: driver.script.streams == 0)
    assert threading.active_count() <= before + 2


def test_it_is_not_served_while_the_driver_starts(tmp_path: Path) -> None:
    driver = FakeDriver()
    driver.ready = False
    with served(driver, tmp_path) as client, pytest.raises(grpc.RpcError) as caught:
        list(client.metadata.GetMetadataAllocated(allocated()))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert driver.calls == []


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (csi_pb2.GetMetadataAllocatedRequest(), "snapshot_id"),
        (allocated(-1), "max_results"),
    ],
)
def test_a_request_that_is_wrong_by_itself(
    running: Running, request_: csi_pb2.GetMetadataAllocatedRequest, field: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        list(running.client.metadata.GetMetadataAllocated(request_))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert field in (caught.value.details() or "")
    assert running.driver.calls == []
