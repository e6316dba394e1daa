"""A claim waits for room, and is bound soon after there is some."""

import time

from tests.cluster.cases.driver import driver_pods
from tests.cluster.cases.namespaces import Namespace
from tests.cluster.cases.objects import Use, claim, pod, shipped_class

# Of the smallest pool: two do not fit into one, whatever else has gone from it meanwhile.
SHARE = 0.6
CAPACITY_POLL_S = 30
# Besides the poll: the old volume has to go, and the scheduler and the pod take their time.
MARGIN_S = 60


def test_a_claim_without_room_waits_and_is_bound_once_there_is_some(namespace: Namespace) -> None:
    drivers = driver_pods(namespace.kubectl)
    size = str(int(min(driver.pool_bytes()[0] for driver in drivers) * SHARE))
    fillers = {f"filler-{number}": driver.node for number, driver in enumerate(drivers)}
    namespace.start(
        *(pod(name, Use(name), node=node) for name, node in fillers.items()),
        *(claim(name, shipped_class("ext4"), size) for name in fillers),
    )

    namespace.apply(claim("waiting", shipped_class("ext4"), size), pod("waiting", Use("waiting")))
    namespace.wait_event(
        "Pod/waiting", "did not have enough free storage", timeout_s=2 * CAPACITY_POLL_S + 30
    )
    assert namespace.get("pvc", "waiting")["status"]["phase"] == "Pending"

    freed, node = next(iter(fillers.items()))
    namespace.delete(f"pod/{freed}", f"pvc/{freed}")
    started = time.monotonic()
    namespace.wait_ready("waiting", timeout_s=CAPACITY_POLL_S + MARGIN_S)
    print(f"bound and mounted {time.monotonic() - started:.0f} s after the room was freed")
    assert namespace.get("pod", "waiting")["spec"]["nodeName"] == node
