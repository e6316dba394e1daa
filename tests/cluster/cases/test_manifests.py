"""Every manifest that the project ships passes the API server's own strict validation."""

from pathlib import Path

import pytest
import yaml

from tests.cluster.build import changed_blocks_crds, snapshot_crds
from tests.cluster.installation import DEPLOY
from tests.cluster.kubectl import Kubectl

REPOSITORY = DEPLOY.parent
SNAPSHOT_CONTROLLER = DEPLOY / "snapshot-controller"
# Their definitions have to be fetched; those that are pinned for the cluster stand in for them.
FETCHED = (SNAPSHOT_CONTROLLER, SNAPSHOT_CONTROLLER / "crds", DEPLOY / "changed-blocks" / "crds")
KUSTOMIZATIONS = sorted(
    path.parent for path in DEPLOY.rglob("kustomization.yaml") if path.parent not in FETCHED
)
PLAIN = [SNAPSHOT_CONTROLLER / "controller.yaml", *sorted((REPOSITORY / "examples").glob("*.yaml"))]
_DRY_RUN = ("apply", "--server-side", "--dry-run=server", "--validate=strict", "--force-conflicts")


@pytest.mark.parametrize("folder", KUSTOMIZATIONS, ids=lambda path: str(path.relative_to(DEPLOY)))
def test_a_base_or_overlay_is_valid(kubectl: Kubectl, folder: Path) -> None:
    rendered = kubectl.run("kustomize", str(folder))
    manifests = [each for each in yaml.safe_load_all(rendered) if each]
    assert len(manifests) > 1
    for manifest in manifests:
        if manifest["kind"] == "CSIDriver":
            # What an overlay changes in it can be said of a new object only.
            manifest["metadata"]["name"] = f"dry-run.{manifest['metadata']['name']}"
    # A dry run makes no namespace that the objects in it could be checked against.
    known = {each["metadata"]["name"] for each in kubectl.get("namespaces")["items"]}
    made = {each["metadata"]["name"] for each in manifests if each["kind"] == "Namespace"} - known
    for manifest in manifests:
        if manifest["metadata"].get("namespace") in made:
            manifest["metadata"]["namespace"] = "default"
    kubectl.run(*_DRY_RUN, "--filename=-", text_in=yaml.safe_dump_all(manifests))


@pytest.mark.parametrize("path", PLAIN, ids=lambda path: path.name)
def test_a_file_is_valid(kubectl: Kubectl, path: Path) -> None:
    kubectl.run(*_DRY_RUN, "--filename", str(path))


def test_the_definitions_that_users_fetch_are_valid(kubectl: Kubectl) -> None:
    kubectl.run(*_DRY_RUN, "--kustomize", str(snapshot_crds()))
    kubectl.run(*_DRY_RUN, "--filename", str(changed_blocks_crds()))


def test_what_the_api_server_does_not_know_is_refused(kubectl: Kubectl) -> None:
    text = (REPOSITORY / "examples" / "pod.yaml").read_text(encoding="utf-8")
    wrong = text.replace("storageClassName:", "storageClas:")
    assert wrong != text
    done = kubectl.try_run(*_DRY_RUN, "--filename=-", text_in=wrong)
    assert done.returncode != 0
    assert "storageClas" in done.stderr
