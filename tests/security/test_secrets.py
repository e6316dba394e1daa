"""Secrets of every shape in every field that is marked `csi_secret`: no byte of them comes out.

They go through calls that succeed and calls that fail, with programs run and records written, and
are then looked for in logs, answers, errors, the pool, and in what every child was started with.
"""

import base64
import contextlib
import json
import subprocess
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from csi.v1 import csi_pb2 as pb
from tests.contract import requests
from tests.contract.every_rpc import RPCS, request_for
from tests.contract.refusals import as_call
from tests.contract.requests import MIB, filesystem, from_snapshot, from_volume
from tests.disks import mounted_filesystem
from tests.driver import Driver, create_pool, running_driver
from tests.kubelet import Kubelet
from tests.security import scale

pytestmark = pytest.mark.kernel

POOL_BYTES = 4 << 30
MARK = "tr0ub4dor"
SECRETS = {
    "plain": f"{MARK}-only-the-caller-knows",
    "quotes": f"{MARK}\"'`${{HOME}}",
    "lines": f"{MARK}\nts=now level=info msg=forged\r\n",
    "braces": f'{MARK}{{"a": "%s", "b": {{0.__class__}}}}',
    "slashes": f"../{MARK}/\\x00\\n",
    "letters": f"{MARK}-пароль-密码-\U0001f511",
    "control": f"{MARK}\x00\x1b[31m\x7f\x9f",
    "base64": base64.b64encode(f"{MARK} in base64".encode()).decode(),
    "long": MARK + "x" * 1500,
    f"{MARK}-as-a-key": "value-of-it",
}
WITH_SECRETS = [
    rpc
    for rpc in RPCS
    if any(
        field.GetOptions().Extensions[pb.csi_secret] for field in request_for(rpc).DESCRIPTOR.fields
    )
]
LEVELS = ["debug", "info", "warning", "error"] if scale.WHOLE else ["debug"]
SHAPES = ["json", "text"] if scale.WHOLE else ["json"]
FORMS = [f"{level} {shape}" for level in LEVELS for shape in SHAPES]
FAILING_MKFS = {"mkfsOptions": "-N 9999999999"}


def shapes_of(secret: str) -> set[str]:
    """The ways in which it might be written."""
    raw = secret.encode()
    return {
        secret,
        repr(secret)[1:-1],
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        secret.encode("unicode_escape").decode(),
        base64.b64encode(raw).decode(),
        urllib.parse.quote(secret),
        raw.hex(),
    }


NEEDLES = {MARK} | {
    shape for item in SECRETS.items() for part in item for shape in shapes_of(part) if len(part) > 8
}


def found_in(text: str) -> list[str]:
    return sorted(needle for needle in NEEDLES if needle in text)


def with_secrets(request: Message) -> Message:
    """Puts the corpus into every field that has the mark."""
    for field in request.DESCRIPTOR.fields:
        if field.GetOptions().Extensions[pb.csi_secret]:
            getattr(request, field.name).update(SECRETS)
    return request


class Caller:
    """Makes calls with secrets and keeps all that comes back."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.heard: list[str] = []
        self.called: set[str] = set()
        self._stubs = (driver.controller, driver.group, driver.metadata, driver.node)

    def call(self, rpc: str, request: Message) -> Any:
        """Makes a call; returns the answer, or None for a refusal."""
        stub = next(stub for stub in self._stubs if hasattr(stub, rpc))
        self.called.add(rpc)
        scale.FIGURES["calls with secrets"] += 1
        try:
            answer = getattr(stub, rpc)(with_secrets(request), timeout=60)
            answers = [answer] if isinstance(answer, Message) else list(answer)
        except grpc.RpcError as error:
            call = as_call(error)
            self.heard += [call.details() or "", str(call.trailing_metadata())]
            return None
        self.heard += [str(answer) for answer in answers]
        return answers[0] if answers else None


def life(caller: Caller, kubelet: Kubelet) -> Iterator[None]:
    """Leads volumes through all calls; stops halfway, where all there can be is on the disk."""
    create, capability = "CreateVolume", filesystem()
    caller.call(create, requests.create_volume("broken", size=64 * MIB, parameters=FAILING_MKFS))
    made = caller.call(create, requests.create_volume("v", size=64 * MIB))
    volume_id = made.volume.volume_id
    grown = requests.controller_expand(volume_id, 96 * MIB)
    caller.call("ControllerExpandVolume", grown)
    caller.call("ControllerPublishVolume", requests.controller_publish(volume_id))
    staging, target = kubelet.staging_path(volume_id), kubelet.target_path(volume_id, "pod")
    caller.call("NodeStageVolume", requests.stage(volume_id, staging))
    caller.call("NodePublishVolume", requests.publish(volume_id, staging, target))
    taken = caller.call("CreateSnapshot", requests.create_snapshot("s", volume_id))
    snapshot_id = taken.snapshot.snapshot_id
    for name, source in (("r", from_snapshot(snapshot_id)), ("c", from_volume(volume_id))):
        copy = requests.create_volume(name, size=128 * MIB, source=source)
        caller.call(create, copy)
    group = caller.call("CreateVolumeGroupSnapshot", requests.create_group("g", [volume_id]))
    caller.call("ValidateVolumeCapabilities", requests.validate(volume_id, [capability]))
    caller.call("ControllerModifyVolume", requests.modify(volume_id, {"readIOPS": "100"}))
    caller.call("NodeExpandVolume", requests.node_expand(volume_id, target, 96 * MIB, capability))
    caller.call("ListSnapshots", requests.list_snapshots())
    caller.call("GetSnapshot", requests.get_snapshot(snapshot_id))
    caller.call("GetMetadataAllocated", requests.allocated(snapshot_id))
    caller.call("GetMetadataDelta", requests.delta(snapshot_id, snapshot_id))
    group_id = group.group_snapshot.group_snapshot_id
    members = [snapshot.snapshot_id for snapshot in group.group_snapshot.snapshots]
    caller.call("GetVolumeGroupSnapshot", requests.get_group(group_id, members))
    yield
    caller.call("NodeUnpublishVolume", requests.unpublish(volume_id, target))
    caller.call("NodeUnstageVolume", requests.unstage(volume_id, staging))
    caller.call("ControllerUnpublishVolume", requests.controller_unpublish(volume_id))
    caller.call("DeleteVolumeGroupSnapshot", requests.delete_group(group_id, members))
    caller.call("DeleteSnapshot", requests.delete_snapshot(snapshot_id))
    caller.call("DeleteVolume", requests.delete_volume(volume_id))


@contextlib.contextmanager
def programs_traced(pid: int, log: Path) -> Iterator[None]:
    """Notes with what arguments and environment the process starts others."""
    command = ["strace", "-f", "-v", "-s", "65536", "-e", "trace=execve", "-o", str(log)]
    tracer = subprocess.Popen([*command, "-p", str(pid)], stderr=subprocess.PIPE, text=True)
    try:
        assert tracer.stderr is not None
        assert "attached" in tracer.stderr.readline()
        time.sleep(0.2)  # it says so before it has all threads
        yield
    finally:
        tracer.terminate()
        tracer.communicate(timeout=20)


@pytest.fixture(scope="module", params=FORMS)
def outcome(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, str]:
    """Everything in which a secret might turn up."""
    level, shape = request.param.split()
    folder = tmp_path_factory.mktemp("secrets")
    config = (
        "apiVersion: local-path.csi.dev/v1\nkind: DriverConfiguration\n"
        f"log: {{level: {level}, format: {shape}}}\n"
    )
    programs = folder / "programs"
    with mounted_filesystem("xfs", folder, POOL_BYTES) as pool:
        create_pool(pool)
        with running_driver(pool, folder, config=config) as driver:
            caller = Caller(driver)
            with programs_traced(driver.pid, programs):
                rest = life(caller, Kubelet(folder / "kubelet"))
                next(rest)
                records = written(pool)
                environment = Path(f"/proc/{driver.pid}/environ").read_bytes()
                next(rest, None)
                for rpc in WITH_SECRETS:
                    caller.call(rpc, request_for(rpc))
            missing = set(WITH_SECRETS) - caller.called
            assert not missing, f"no call with secrets was made of {missing}"
            records += written(pool)
            log = driver.log_text()
            forget(driver)
    return {
        "log": log,
        "answers and errors": "\n".join(caller.heard),
        "pool": records,
        "programs": programs.read_text(errors="replace"),
        "environment": environment.decode(errors="replace"),
        "level": level,
    }


def written(pool: Path) -> str:
    """Names and contents of what is in a pool, but for the images."""
    paths = [path for path in pool.rglob("*") if path.name != "disk.img"]
    contents = [path.read_text(errors="replace") for path in paths if path.is_file()]
    return "\n".join([*map(str, paths), *contents])


def forget(driver: Driver) -> None:
    for entry in driver.controller.ListVolumes(requests.list_volumes()).entries:
        driver.controller.DeleteVolume(requests.delete_volume(entry.volume.volume_id))


@pytest.mark.parametrize("where", ["log", "answers and errors", "pool", "programs", "environment"])
def test_no_secret_is_found(outcome: Mapping[str, str], where: str) -> None:
    assert found_in(outcome[where]) == []


def test_there_was_something_to_look_in(outcome: Mapping[str, str]) -> None:
    assert '"name":"v"' in outcome["pool"].replace(" ", "")
    for program in ("mkfs.ext4", "freezer.py", "resize2fs"):
        assert program in outcome["programs"], f"{program} was not run"
    assert "mkfs" in outcome["answers and errors"], "no call failed in a program"
    if outcome["level"] == "debug":
        assert "stripped" in outcome["log"]


@pytest.mark.parametrize("shape", sorted(shapes_of(SECRETS["quotes"])))
def test_they_would_be_found(shape: str) -> None:
    assert found_in(f"before {shape} after")
