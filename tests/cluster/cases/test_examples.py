"""Each example is applied as it stands, and does what it says."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.cluster.cases.namespaces import Namespace

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
# They take the overlay single-node-attach, whose cases have it, and pools of certain names.
ELSEWHERE = ("group-snapshot.yaml", "pools.yaml")
# Others copy its claim.
FIRST = "pod.yaml"


@pytest.fixture
def attributes(namespace: Namespace) -> Iterator[None]:
    """Takes away what examples make beside the namespace."""
    yield
    names = [
        manifest["metadata"]["name"]
        for path in EXAMPLES.glob("*.yaml")
        for manifest in yaml.safe_load_all(path.read_text(encoding="utf-8"))
        if manifest["kind"] == "VolumeAttributesClass"
    ]
    delete = ("delete", "volumeattributesclass", "--wait=false", "--ignore-not-found")
    namespace.kubectl.run(*delete, *names)


@pytest.mark.usefixtures("attributes")
def test_every_example_comes_up(namespace: Namespace) -> None:
    others = sorted(EXAMPLES.glob("*.yaml"))
    others = [path for path in others if path.name not in (FIRST, *ELSEWHERE)]
    assert others
    _apply(namespace, EXAMPLES / FIRST)
    namespace.wait_ready("example")
    started = namespace.shell("example", "cat /data/started")
    assert started

    for path in others:
        _apply(namespace, path)
    pods, named, sets = set[str](), set[str](), dict[str, int]()
    for path in (EXAMPLES / FIRST, *others):
        for manifest in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            if manifest["kind"] == "Pod":
                pods.add(manifest["metadata"]["name"])
            if manifest["kind"] == "PersistentVolumeClaim":
                named.add(manifest["metadata"]["name"])
            if manifest["kind"] == "StatefulSet":
                sets[manifest["metadata"]["name"]] = manifest["spec"]["replicas"]
    namespace.wait_ready(*pods)
    for name, replicas in sets.items():
        namespace.wait_rollout(f"statefulset/{name}")
        pods |= {f"{name}-{number}" for number in range(replicas)}
    assert {each["metadata"]["name"] for each in namespace.get("pods")["items"]} == pods

    claims = {each["metadata"]["name"]: each for each in namespace.get("pvc")["items"]}
    # Besides there are those of the StatefulSet and of ephemeral volumes.
    assert named < claims.keys()
    assert {each["status"]["phase"] for each in claims.values()} == {"Bound"}
    # What the readers found is what the first one wrote.
    for reader in ("example-clone", "example-restored"):
        assert namespace.run("logs", reader).strip() == started


def _apply(namespace: Namespace, path: Path) -> None:
    namespace.run("apply", "--server-side", "--validate=strict", "--filename", str(path))
