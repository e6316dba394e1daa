"""What a person needs to see of a case that failed, as long as the cluster is there to be asked."""

import json

from tests.cluster.cases.namespaces import Namespace
from tests.cluster.installation import NAMESPACE
from tests.cluster.kubectl import Kubectl

ASK_S = 30.0
EVENTS = 20
LINES_OF_A_POD = 6
SINCE = "5m"
_OBJECTS = "pods,persistentvolumeclaims,volumesnapshots"
_EVENT = "TIME:.metadata.creationTimestamp,KIND:.involvedObject.kind,NAME:.involvedObject.name"


def describe(namespace: Namespace) -> str:
    """The objects and last events of a case's namespace, and what the driver's pods complain of."""
    kubectl, where = namespace.kubectl, ("--namespace", namespace.name)
    events = _ask(
        kubectl,
        *(*where, "get", "events", "--sort-by=.metadata.creationTimestamp"),
        f"--output=custom-columns={_EVENT},REASON:.reason,MESSAGE:.message",
    )
    return "\n".join(
        [
            f"In the namespace {namespace.name}:",
            _ask(kubectl, *where, "get", _OBJECTS, "--output=wide"),
            *events.splitlines()[-EVENTS:],
            f"The driver's pods, and warnings in their logs of the last {SINCE}:",
            _ask(kubectl, "--namespace", NAMESPACE, "get", "pods", "--output=wide"),
            *_complaints(kubectl),
        ]
    )


def _complaints(kubectl: Kubectl) -> list[str]:
    names = _ask(kubectl, "--namespace", NAMESPACE, "get", "pods", "--output=name").split()
    found = []
    for name in names:
        log = ("logs", name, "--all-containers", "--prefix", f"--since={SINCE}", "--tail=2000")
        lines = _ask(kubectl, "--namespace", NAMESPACE, *log).splitlines()
        found += [line for line in lines if is_complaint(line)][-LINES_OF_A_POD:]
    return found


def is_complaint(line: str) -> bool:
    """Whether a line of a log, behind the name of its pod, is a warning or worse.

    The driver's lines are JSON; those of the sidecars begin with a letter for their level.
    """
    _, _, text = line.partition("] ")
    try:
        return json.loads(text)["level"] in {"warning", "error", "critical"}
    except (ValueError, KeyError, TypeError):
        return text[:1] in {"W", "E", "F"} and text[1:5].isdigit()


def _ask(kubectl: Kubectl, *arguments: str) -> str:
    # Bounded, since the cluster may be the very thing that is broken.
    done = kubectl.try_run(*arguments, timeout_s=ASK_S)
    return (done.stdout + done.stderr).rstrip()
