"""Many pods at once, each with a volume of its own."""

import time

from tests.cluster.cases.driver import claims_in_pools
from tests.cluster.cases.namespaces import Namespace
from tests.cluster.cases.objects import Manifest, Use, claim, pod, shipped_class

REPLICAS = 20
NAMES = [f"many-{number}" for number in range(REPLICAS)]
GONE_S = 180.0


def test_twenty_pods_at_once_get_twenty_volumes(namespace: Namespace) -> None:
    started = time.monotonic()
    namespace.apply(_stateful_set())
    namespace.wait_rollout("statefulset/many")
    print(f"{REPLICAS} pods were ready after {time.monotonic() - started:.1f} s")

    for name in NAMES:
        namespace.shell(name, f"test ! -e /data/name; echo {name} > /data/name")
    assert [namespace.shell(name, "cat /data/name") for name in NAMES] == NAMES
    volumes = {each["spec"]["volumeName"] for each in namespace.get("pvc")["items"]}
    assert len(volumes) == REPLICAS

    started = time.monotonic()
    namespace.run("delete", "--wait=false", "statefulset/many")
    namespace.wait_until(
        lambda: not claims_in_pools(namespace.kubectl, namespace.name),
        GONE_S,
        "the claims to go with their StatefulSet, and the volumes with them",
    )
    print(f"their volumes were gone after {time.monotonic() - started:.1f} s")


def _stateful_set() -> Manifest:
    template = pod("unused", Use("data"))
    labels = {"app": "many"}
    template["spec"].pop("volumes")
    template["spec"]["containers"][0]["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
    of_each = claim("data", shipped_class("ext4"), "64Mi")
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "many"},
        "spec": {
            "serviceName": "many",
            "replicas": REPLICAS,
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": labels},
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete"},
            "template": {"metadata": {"labels": labels}, "spec": template["spec"]},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": of_each["spec"]}],
        },
    }
