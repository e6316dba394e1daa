"""Group snapshots: several volumes at one moment."""

from pathlib import Path

import yaml

from tests.cluster.cases.namespaces import READY_S, Namespace
from tests.cluster.cases.objects import (
    SNAPSHOT_CLASS,
    Manifest,
    Use,
    claim,
    from_snapshot,
    pod,
    shipped_class,
)

EXAMPLE = Path(__file__).resolve().parents[4] / "examples" / "group-snapshot.yaml"
GROUP = "volumegroupsnapshots.groupsnapshot.storage.k8s.io"
LABELS = {"group": "both"}
# First the log, then the data: at no moment has the data what the log has not.
_WRITER = """
n=0
while :; do n=$((n + 1)); echo $n >> /log/n; sync /log/n; echo $n >> /data/n; sync /data/n; done
"""


def test_a_group_shows_two_volumes_at_one_moment(namespace: Namespace) -> None:
    # Of two filesystems, which are held still in different ways.
    classes = {"log": shipped_class("ext4"), "data": shipped_class("xfs")}
    claims = [claim(name, each, "300Mi") for name, each in classes.items()]
    for each in claims:
        each["metadata"]["labels"] = LABELS
    namespace.start(pod("writer", Use("log", "/log"), Use("data", "/data")), *claims)
    namespace.shell("writer", f"({_WRITER}) > /dev/null 2>&1 &")
    namespace.wait_until(lambda: _last(namespace, "writer", "/data/n") > 10, 60, "some writes")

    groups = ["group-1", "group-2", "group-3"]
    copies: list[Manifest] = []
    for group in groups:
        namespace.apply(_group(group))
        _wait_ready(namespace, group)
        members = _members(namespace, group)
        assert members.keys() == classes.keys()
        for name, member in members.items():
            restored = claim(
                f"{group}-{name}", classes[name], "300Mi", source=from_snapshot(member)
            )
            copies.append(restored)
        uses = [Use(f"{group}-{name}", f"/{name}") for name in classes]
        copies.append(pod(group, *uses))
    namespace.start(*copies)

    numbers = []
    for group in groups:
        log, data = (_last(namespace, group, f"/{name}/n") for name in ("log", "data"))
        assert data <= log <= data + 1, f"{group}: the log ends with {log}, the data with {data}"
        numbers.append(data)
    assert 0 < numbers[0] < numbers[1] < numbers[2]


def test_the_example_comes_up(namespace: Namespace) -> None:
    manifests = list(yaml.safe_load_all(EXAMPLE.read_text(encoding="utf-8")))
    name = next(
        each["metadata"]["name"] for each in manifests if each["kind"] == "VolumeGroupSnapshot"
    )
    # As it stands, by one command: the group is asked for before its claims have volumes.
    namespace.run("apply", "--server-side", "--validate=strict", "--filename", str(EXAMPLE))
    namespace.wait_ready("example-group")
    _wait_ready(namespace, name)
    assert _members(namespace, name).keys() == {"example-group-log", "example-group-data"}


def _group(name: str) -> Manifest:
    return {
        "apiVersion": "groupsnapshot.storage.k8s.io/v1beta2",
        "kind": "VolumeGroupSnapshot",
        "metadata": {"name": name},
        "spec": {
            "volumeGroupSnapshotClassName": SNAPSHOT_CLASS,
            "source": {"selector": {"matchLabels": LABELS}},
        },
    }


def _wait_ready(namespace: Namespace, group: str) -> None:
    wait = ("wait", "--for=jsonpath={.status.readyToUse}=true", f"--timeout={READY_S:.0f}s")
    namespace.run(*wait, f"{GROUP}/{group}", timeout_s=READY_S * 2)


def _members(namespace: Namespace, group: str) -> dict[str, str]:
    """The names of a group's snapshots by those of their claims."""
    uid = namespace.get(GROUP, group)["metadata"]["uid"]
    found = {}
    for each in namespace.get("volumesnapshots")["items"]:
        owners = [owner["uid"] for owner in each["metadata"].get("ownerReferences", [])]
        if uid in owners:
            found[each["spec"]["source"]["persistentVolumeClaimName"]] = each["metadata"]["name"]
    return found


def _last(namespace: Namespace, pod_name: str, path: str) -> int:
    """The last whole number in a file."""
    lines = namespace.shell(pod_name, f"tail -n 2 {path} 2> /dev/null || true").split()
    return int(lines[-1]) if lines else 0
