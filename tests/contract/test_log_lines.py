"""The log: one structured line a call, with what an administrator searches for."""

import json

import grpc
import pytest

from tests.contract import requests
from tests.contract.bench import Bench
from tests.contract.every_rpc import RPCS, request_for, send
from tests.contract.node_fixtures import UNKNOWN_VOLUME
from tests.contract.refusals import as_call
from tests.driver import NODE_ID, Driver

pytestmark = pytest.mark.kernel


def _new(driver: Driver, before: str) -> str:
    return driver.log_text().removeprefix(before)


def _forget(bench: Bench, rpc: str) -> None:
    if rpc == "CreateVolume":
        bench.create("name")


def _calls(driver: Driver, before: str, method: str) -> list[dict[str, object]]:
    """The lines of a method since then."""
    found = [json.loads(line) for line in _new(driver, before).splitlines()]
    return [line for line in found if line.get("method") == method]


def test_a_call_that_succeeds_is_one_line(bench: Bench) -> None:
    before = bench.driver.log_text()

    volume = bench.create("one-line")

    (line,) = _calls(bench.driver, before, "CreateVolume")
    assert line["code"] == "OK"
    assert line["level"] == "info"
    assert line["volume_name"] == "one-line"
    assert line["volume_id"] == volume.volume_id
    assert isinstance(line["duration_ms"], float)
    assert line["duration_ms"] > 0
    assert str(line["ts"]).endswith("Z")


def test_a_call_that_fails_is_one_line(bench: Bench) -> None:
    before = bench.driver.log_text()

    with pytest.raises(grpc.RpcError) as caught:
        bench.driver.controller.ControllerPublishVolume(requests.controller_publish(UNKNOWN_VOLUME))

    (line,) = _calls(bench.driver, before, "ControllerPublishVolume")
    assert line["code"] == "NOT_FOUND"
    assert line["level"] == "warning"
    assert line["volume_id"] == UNKNOWN_VOLUME
    assert line["node_id"] == NODE_ID
    assert line["error"] == as_call(caught.value).details()


@pytest.mark.parametrize("rpc", RPCS)
def test_every_call_is_one_line_with_its_ids(bench: Bench, rpc: str) -> None:
    request = request_for(rpc)
    ids = {
        field.name: getattr(request, field.name)
        for field in request.DESCRIPTOR.fields
        if field.name.endswith("_id") and getattr(request, field.name)
    }
    before = bench.driver.log_text()

    code = "OK"
    try:
        send(bench.driver, rpc, request)
    except grpc.RpcError as error:
        code = as_call(error).code().name
    finally:
        (line,) = _calls(bench.driver, before, rpc)
        _forget(bench, rpc)

    assert line["code"] == code
    assert "duration_ms" in line
    assert ids.items() <= line.items()


def test_a_value_begins_no_line_of_its_own(bench: Bench) -> None:
    """Or a caller could write lines that look like the driver's."""
    forged = '\n{"level":"info","msg":"forged"}'
    before = bench.driver.log_text()

    with pytest.raises(grpc.RpcError):
        bench.driver.controller.ControllerGetVolume(requests.get_volume(forged))

    written = _new(bench.driver, before)
    assert "forged" in written
    assert not [line for line in written.splitlines() if line.startswith('{"level":"info","msg"')]
