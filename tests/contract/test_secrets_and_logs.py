"""No secret reaches the log, whatever is logged and however, nor an error's message."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.message import Message

from csi.v1 import csi_pb2 as pb
from tests.contract import requests
from tests.contract.bench import Bench
from tests.contract.every_rpc import RPCS, put, request_for, send
from tests.contract.node_fixtures import UNKNOWN_VOLUME
from tests.contract.refusals import as_call
from tests.contract.requests import filesystem
from tests.driver import Driver, running_driver
from tests.kubelet import Kubelet

pytestmark = pytest.mark.kernel

SECRET = "hunter2-only-the-caller-knows-this"
TOKENS = "csi.storage.k8s.io/serviceAccount.tokens"


@pytest.fixture(scope="module", params=["json", "text"])
def log_format(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def driver(xfs_pool: Path, folder: Path, log_format: str) -> Iterator[Driver]:
    """The driver with the most that it can log."""
    own = folder / log_format
    own.mkdir()
    config = (
        "apiVersion: local-path.csi.dev/v1\nkind: DriverConfiguration\n"
        f"log: {{level: debug, format: {log_format}}}\n"
    )
    with running_driver(xfs_pool, own, config=config) as driver:
        yield driver


@pytest.fixture
def bench(driver: Driver, xfs_pool: Path, folder: Path) -> Iterator[Bench]:
    bench = Bench(driver, Kubelet(folder / "kubelet"), xfs_pool)
    yield bench
    bench.clean_up()


def _new(driver: Driver, before: str) -> str:
    return driver.log_text().removeprefix(before)


def _secret_fields(request: Message) -> list[str]:
    """The fields that the specification marks, by the mark itself."""
    return [
        field.name
        for field in request.DESCRIPTOR.fields
        if field.GetOptions().Extensions[pb.csi_secret]
    ]


WITH_SECRETS = [rpc for rpc in RPCS if _secret_fields(request_for(rpc))]


def test_the_mark_is_where_the_specification_has_it() -> None:
    assert {"CreateVolume", "ListSnapshots", "NodeStageVolume"} <= set(WITH_SECRETS)
    assert "NodeUnstageVolume" not in WITH_SECRETS


@pytest.mark.parametrize("rpc", WITH_SECRETS)
def test_secrets_reach_neither_log_nor_message(bench: Bench, rpc: str) -> None:
    request = request_for(rpc)
    for field in _secret_fields(request):
        put(request, (field,), {"password": SECRET, f"{SECRET}-key": "x"})
    before = bench.driver.log_text()

    message = ""
    try:
        answer = send(bench.driver, rpc, request)
    except grpc.RpcError as error:
        message = as_call(error).details() or ""
    else:
        assert SECRET.encode() not in answer
    finally:
        _forget(bench, rpc)

    assert SECRET not in message
    written = _new(bench.driver, before)
    assert SECRET not in written
    assert "stripped" in written, "at this level the request is logged, without its secrets"


def _forget(bench: Bench, rpc: str) -> None:
    if rpc == "CreateVolume":
        bench.create("name")


@pytest.mark.parametrize("rpc", ["NodeStageVolume", "NodePublishVolume"])
def test_tokens_of_service_accounts_reach_no_log(bench: Bench, rpc: str) -> None:
    request = request_for(rpc)
    put(request, ("volume_context",), {TOKENS: SECRET, "kind": "image"})
    before = bench.driver.log_text()

    with pytest.raises(grpc.RpcError):
        send(bench.driver, rpc, request)

    assert SECRET not in _new(bench.driver, before)


def test_mount_flags_reach_no_log(bench: Bench) -> None:
    """A flag may be a password, of a filesystem over the network for one."""
    volume_id = bench.create().volume_id
    before = bench.driver.log_text()

    with pytest.raises(grpc.RpcError) as caught:
        bench.driver.node.NodeStageVolume(
            requests.stage(volume_id, "/nowhere/staging", filesystem(flags=[f"password={SECRET}"]))
        )

    message = as_call(caught.value).details() or ""
    assert "password" in message
    assert SECRET not in message
    assert SECRET not in _new(bench.driver, before)


def test_a_secret_in_a_request_that_makes_no_sense_reaches_no_log(bench: Bench) -> None:
    request = requests.delete_volume(UNKNOWN_VOLUME)
    request.secrets["password"] = SECRET
    before = bench.driver.log_text()

    with pytest.raises(grpc.RpcError):
        send(bench.driver, "DeleteVolume", request.SerializeToString() + b"\xff")

    assert SECRET not in _new(bench.driver, before)
