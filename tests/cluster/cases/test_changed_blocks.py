"""A backup of a volume in use by its changed blocks, as a backup tool makes it.

The tool asks external-snapshot-metadata, which the driver's manifests put beside it, copies the
ranges that it is told and nothing else, and compares the backup with the snapshot at the end.
"""

import contextlib
import json
import subprocess
from collections.abc import Iterator

import pytest

from tests.cluster.build import changed_blocks_crds
from tests.cluster.cases.namespaces import Namespace
from tests.cluster.cases.objects import (
    DRIVER,
    Manifest,
    Use,
    claim,
    from_snapshot,
    pod,
    shipped_class,
    snapshot,
)
from tests.cluster.images import BACKUP_NAME
from tests.cluster.installation import DEPLOY, NAMESPACE, wait_for_rollout
from tests.cluster.kubectl import Kubectl

MANIFESTS = DEPLOY / "changed-blocks"
SERVICE = "csi-local-path-snapshot-metadata"
ACCOUNT = "backup"
BLOCK = 4096
SIZE_MIB = 64
# In blocks: what the first snapshot holds, and what is written after it.
OLD = range(1024, 1024 + 2048)
NEW = (range(1), range(1500, 1516), range(8000, 8256))


# A cluster of somebody's lacks the image of the tool.
pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture(scope="module")
def told_by(kubectl: Kubectl) -> Iterator[str]:
    """Installs what tells changed blocks to backup tools, as a user does; its address."""
    apply = ("apply", "--server-side", "--validate=strict")
    with contextlib.ExitStack() as taken_away:

        def run_at_end(*what: str) -> None:
            taken_away.callback(kubectl.run, "delete", "--ignore-not-found", *what)

        crds = ("--filename", str(changed_blocks_crds()))
        run_at_end(*crds)
        kubectl.run("apply", "--server-side", *crds)
        made = subprocess.run(
            [MANIFESTS / "certificate"], capture_output=True, text=True, timeout=60, check=True
        )
        run_at_end("secret", SERVICE, "--namespace", NAMESPACE)
        kubectl.run(*apply, "--filename=-", text_in=made.stdout)
        run_at_end("-k", str(MANIFESTS))
        kubectl.run(*apply, "-k", str(MANIFESTS))
        wait_for_rollout(kubectl, NAMESPACE)
        found = kubectl.get("service", SERVICE, "--namespace", NAMESPACE)
        yield str(found["spec"]["clusterIP"])


@pytest.fixture
def account(namespace: Namespace) -> Iterator[str]:
    """An account with the rights of a backup tool in the namespace."""
    name = namespace.name
    subject = {"kind": "ServiceAccount", "name": ACCOUNT, "namespace": name}
    snapshots, told = "snapshot.storage.k8s.io", "cbt.storage.k8s.io"
    in_namespace = [
        {"apiGroups": [snapshots], "resources": ["volumesnapshots"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["serviceaccounts/token"], "verbs": ["create"]},
    ]
    in_cluster = [
        {"apiGroups": [snapshots], "resources": ["volumesnapshotcontents"], "verbs": ["get"]},
        {"apiGroups": [told], "resources": ["snapshotmetadataservices"], "verbs": ["get"]},
    ]
    namespace.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT}},
        *_rights("Role", ACCOUNT, in_namespace, subject),
        *_rights("ClusterRole", name, in_cluster, subject),
    )
    yield ACCOUNT
    namespace.kubectl.run("delete", "clusterrole,clusterrolebinding", name)


def test_a_backup_copies_what_is_told_and_is_the_same_as_the_snapshot(
    namespace: Namespace, account: str, told_by: str
) -> None:
    device = Use("data", "/dev/data", block=True)
    namespace.start(pod("writer", device), _claim("data"))
    _write(namespace, OLD)
    _take(namespace, "first")
    for blocks in NEW:
        _write(namespace, blocks)
    _take(namespace, "second")
    namespace.apply(
        _claim("backup"),
        *(_claim(f"{name}-copy", from_snapshot(name)) for name in ("first", "second")),
    )

    tool = _Tool(namespace, account, told_by)
    assert tool.back_up("full", "first-copy", "--snapshot=first") == set(OLD)
    changed = {block for blocks in NEW for block in blocks}
    between = ("--snapshot=second", "--base=first", "--max-results=2")
    assert tool.back_up("incremental", "second-copy", *between) == changed
    assert tool.back_up("again", "second-copy", "--snapshot=second") == changed | set(OLD)


def test_who_may_not_read_the_snapshots_is_told_nothing(
    namespace: Namespace, account: str, told_by: str
) -> None:
    device = Use("data", "/dev/data", block=True)
    namespace.start(pod("writer", device), _claim("data"))
    _take(namespace, "first")
    namespace.apply(_claim("backup"), _claim("first-copy", from_snapshot("first")))
    # What finds the service and asks it stays; what the service asks about goes.
    namespace.run("delete", "rolebinding", account)
    token_alone = {"apiGroups": [""], "resources": ["serviceaccounts/token"], "verbs": ["create"]}
    subject = {"kind": "ServiceAccount", "name": account, "namespace": namespace.name}
    namespace.apply(*_rights("Role", "token-alone", [token_alone], subject))

    tool = _Tool(namespace, account, told_by)
    tool.start("refused", "first-copy", f"--driver={DRIVER}", "--snapshot=first")
    assert "PermissionDenied" in tool.wait("refused", "Failed")


class _Tool:
    """The backup tool, run in pods that have a snapshot's copy and the backup as devices."""

    def __init__(self, namespace: Namespace, account: str, address: str) -> None:
        self._namespace = namespace
        self._account = account
        self._address = address

    def back_up(self, name: str, source: str, *arguments: str) -> set[int]:
        """Runs it to its end; returns the blocks that it was told of."""
        self.start(name, source, *arguments)
        records = json.loads(self.wait(name, "Succeeded"))
        assert {record["volume_capacity_bytes"] for record in records} == {SIZE_MIB << 20}
        # What is zero is left out.
        ranges = [
            (each.get("byte_offset", 0), each["size_bytes"])
            for record in records
            for each in record["block_metadata"] or ()
        ]
        assert all(offset % BLOCK == 0 == size % BLOCK for offset, size in ranges)
        return {
            block
            for offset, size in ranges
            for block in range(offset // BLOCK, (offset + size) // BLOCK)
        }

    def start(self, name: str, source: str, *arguments: str) -> None:
        """Starts it in a pod of that name."""
        devices = Use(source, "/dev/source", block=True), Use("backup", "/dev/backup", block=True)
        made = pod(name, *devices)
        made["spec"]["restartPolicy"] = "Never"
        made["spec"]["serviceAccountName"] = self._account
        # A cluster of tests has no name server.
        address = f"{SERVICE}.{NAMESPACE}.svc"
        made["spec"]["hostAliases"] = [{"ip": self._address, "hostnames": [address]}]
        container = made["spec"]["containers"][0]
        container["image"] = BACKUP_NAME
        del container["command"]
        container["args"] = [
            f"--namespace={self._namespace.name}",
            *("--source=/dev/source", "--target=/dev/backup"),
            *arguments,
        ]
        self._namespace.apply(made)

    def wait(self, pod_name: str, phase: str) -> str:
        """Waits until it has ended; returns what it has said."""

        def phase_now() -> str:
            return str(self._namespace.get("pod", pod_name)["status"]["phase"])

        ended = ("Succeeded", "Failed")
        self._namespace.wait_until(lambda: phase_now() in ended, 180, f"the end of {pod_name}")
        said = self._namespace.run("logs", pod_name)
        assert phase_now() == phase, said
        return said


def _claim(name: str, source: Manifest | None = None) -> Manifest:
    return claim(name, shipped_class("ext4"), f"{SIZE_MIB}Mi", block=True, source=source)


def _rights(
    kind: str, name: str, rules: list[Manifest], subject: Manifest
) -> tuple[Manifest, Manifest]:
    """A Role or ClusterRole, and its binding."""
    group = "rbac.authorization.k8s.io"
    named = {"apiVersion": f"{group}/v1", "metadata": {"name": name}}
    role = {"apiGroup": group, "kind": kind, "name": name}
    return (
        {**named, "kind": kind, "rules": rules},
        {**named, "kind": f"{kind}Binding", "roleRef": role, "subjects": [subject]},
    )


def _write(namespace: Namespace, blocks: range) -> None:
    where = f"bs={BLOCK} seek={blocks.start} count={len(blocks)}"
    namespace.shell("writer", f"dd if=/dev/urandom of=/dev/data {where} conv=notrunc,fsync")


def _take(namespace: Namespace, name: str) -> None:
    namespace.apply(snapshot(name, of_claim="data"))
    namespace.wait_snapshots(name)
