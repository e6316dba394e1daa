"""The overlay for SELinux agrees with itself, with what it lies over, and with the driver."""

from pathlib import Path
from typing import Any

import yaml

from csi import config

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
OVERLAY = DEPLOY / "overlays" / "selinux" / "kustomization.yaml"


def overlay() -> Any:  # noqa: ANN401  # a document
    return yaml.safe_load(OVERLAY.read_text(encoding="utf-8"))


def patch_of(kind: str) -> list[dict[str, Any]]:
    """The operations of the patch for a kind of object."""
    (patch,) = [
        each["patch"] for each in overlay()["patches"] if each.get("target", {}).get("kind") == kind
    ]
    operations: list[dict[str, Any]] = yaml.safe_load(patch)
    return operations


def base_name(kind: str) -> str:
    """The name of the only object of a kind in what the overlay lies over."""
    (name,) = [
        manifest["metadata"]["name"]
        for path in (DEPLOY / "sidecars").glob("*.yaml")
        for manifest in yaml.safe_load_all(path.read_text(encoding="utf-8"))
        if manifest["kind"] == kind
    ]
    return str(name)


def test_the_driver_says_what_its_object_says(tmp_path: Path) -> None:
    (text,) = [each["value"] for each in patch_of("ConfigMap")]
    file = tmp_path / "config.yaml"
    file.write_text(text, encoding="utf-8")

    settings = config.load(config.Flags(config=str(file), node_id="node"), {}).settings

    assert settings.driver_name == overlay()["namePrefix"] + base_name("CSIDriver")
    assert settings.selinux_mount is True
    assert patch_of("CSIDriver") == [{"op": "replace", "path": "/spec/seLinuxMount", "value": True}]


def test_everything_names_that_driver() -> None:
    name = overlay()["namePrefix"] + base_name("CSIDriver")
    assert [each["value"] for each in patch_of("StorageClass")] == [name]
    assert [each["value"] for each in patch_of("Volume(Group)?SnapshotClass")] == [name]
    text = OVERLAY.read_text(encoding="utf-8")
    # The other driver's folders, in which its socket and its pools are.
    assert "plugins/local-path.csi.dev" not in text
    assert text.count(f"plugins/{name}") == 3


def test_every_account_has_its_rights() -> None:
    """Kustomize renames accounts, and not the subjects of bindings."""
    bound = {
        manifest["metadata"]["name"]
        for path in (DEPLOY / "sidecars").glob("*.yaml")
        for manifest in yaml.safe_load_all(path.read_text(encoding="utf-8"))
        if manifest["kind"] in ("RoleBinding", "ClusterRoleBinding")
    }
    assert bound
    subjects = {
        each["target"]["name"]: yaml.safe_load(each["patch"])[0]["value"]
        for each in overlay()["patches"]
        if "RoleBinding" in each.get("target", {}).get("kind", "")
    }
    prefix, namespace = overlay()["namePrefix"], overlay()["namespace"]
    assert subjects == {
        name: {"kind": "ServiceAccount", "name": prefix + name, "namespace": namespace}
        for name in bound
    }


def test_what_names_the_other_driver_in_expressions_is_left_out() -> None:
    kinds = {
        manifest["kind"]
        for path in (DEPLOY / "sidecars").glob("*.yaml")
        for manifest in yaml.safe_load_all(path.read_text(encoding="utf-8"))
        if "expression" in yaml.safe_dump(manifest)
    }
    (dropped,) = [
        each["target"]["kind"].split("|")
        for each in overlay()["patches"]
        if "$patch: delete" in each["patch"] and "target" in each
    ]
    assert kinds <= set(dropped)


def test_no_class_asks_for_what_the_driver_refuses() -> None:
    deleted = [
        yaml.safe_load(each["patch"]) for each in overlay()["patches"] if "target" not in each
    ]
    classes = yaml.safe_load_all((DEPLOY / "sidecars" / "classes.yaml").read_text(encoding="utf-8"))
    of_directories = {
        each["metadata"]["name"]
        for each in classes
        if each["kind"] == "StorageClass" and each["parameters"].get("kind") == "directory"
    }
    assert of_directories
    assert {each["metadata"]["name"] for each in deleted} == of_directories
    assert all(each["$patch"] == "delete" for each in deleted)
