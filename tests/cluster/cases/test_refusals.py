"""What cannot be had: the pod waits, and an event says why."""

from tests.cluster.cases.namespaces import Namespace
from tests.cluster.cases.objects import Use, claim, pod, shipped_class

LARGER_THAN_ANY = "100Ti"


def test_a_claim_larger_than_any_pool_is_told_by_the_scheduler(namespace: Namespace) -> None:
    namespace.apply(
        claim("large", shipped_class("ext4"), LARGER_THAN_ANY), pod("large", Use("large"))
    )
    namespace.wait_event("Pod/large", "did not have enough free storage")
    assert namespace.get("pod", "large")["status"]["phase"] == "Pending"
    assert namespace.get("pvc", "large")["status"]["phase"] == "Pending"


def test_a_wrong_parameter_of_a_class_is_named_by_an_event(namespace: Namespace) -> None:
    wrong = namespace.add_class("wrong", {"knid": "image"})
    namespace.apply(claim("wrong", wrong, "64Mi"), pod("wrong", Use("wrong")))
    namespace.wait_event("PersistentVolumeClaim/wrong", "knid")


def test_a_mount_option_that_is_not_allowed_is_named_by_an_event(namespace: Namespace) -> None:
    wrong = namespace.add_class("wrong", {"csi.storage.k8s.io/fstype": "ext4"}, ("suid",))
    namespace.apply(claim("wrong", wrong, "64Mi"), pod("wrong", Use("wrong")))
    namespace.wait_event("PersistentVolumeClaim/wrong", "suid")
