"""The cluster, and a namespace for each test."""

import os
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.cluster.build import build
from tests.cluster.cases.leaving import wait_gone
from tests.cluster.cases.namespaces import Namespace, make_namespace
from tests.cluster.cases.objects import DRIVER
from tests.cluster.cases.troubles import describe
from tests.cluster.cluster import Cluster
from tests.cluster.errors import ClusterError
from tests.cluster.kubectl import Kubectl
from tests.cluster.versions import KUBECTL

# Each wait has a bound of its own; this one is for what nobody thought of.
CASE_S = 900


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Gives cases the time that they may take on a slow machine."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(CASE_S))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds what the cluster has to say of a case that failed."""
    report = yield
    namespace = getattr(item, "funcargs", {}).get("namespace")
    if report.failed and report.when == "call" and isinstance(namespace, Namespace):
        report.sections.append(("The cluster", describe(namespace)))
    return report


@pytest.fixture(scope="session")
def kubectl() -> Kubectl:
    """The kubectl of the cluster that KUBECONFIG names, or else the project's own."""
    if configuration := os.environ.get("KUBECONFIG"):
        program = shutil.which("kubectl") or build([KUBECTL])[KUBECTL.name]
        found = Kubectl(Path(program), Path(configuration))
    else:
        try:
            found = Cluster.running().kubectl
        except ClusterError as error:
            pytest.fail(
                f"{error}: `make cluster` starts one and installs the driver", pytrace=False
            )
    if found.try_run("get", "csidriver", DRIVER).returncode != 0:
        pytest.fail(
            f"the cluster of {found.kubeconfig} does not answer or has no driver {DRIVER}: "
            "`make cluster` starts one and installs the driver",
            pytrace=False,
        )
    return found


@pytest.fixture(scope="session")
def cluster(kubectl: Kubectl) -> Cluster:
    """The project's own cluster, for cases that do to its nodes what nobody does to a user's."""
    if os.environ.get("KUBECONFIG"):
        pytest.skip("nodes are stopped and killed in the project's own cluster only")
    return Cluster.running()


@pytest.fixture(scope="session")
def left_namespaces(kubectl: Kubectl) -> Iterator[list[str]]:
    """Namespaces that tests have deleted; nothing of them may be there at the end."""
    left: list[str] = []
    yield left
    wait_gone(kubectl, left)


@pytest.fixture
def namespace(kubectl: Kubectl, left_namespaces: list[str]) -> Iterator[Namespace]:
    """A namespace; it is deleted with everything in it while the next test runs."""
    made = make_namespace(kubectl)
    left_namespaces.append(made.name)
    yield made
    kubectl.run("delete", "namespace", made.name, "--wait=false", "--ignore-not-found")
    if made.classes:
        kubectl.run("delete", "storageclass", *made.classes)
