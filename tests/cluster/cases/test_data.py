"""What a pod writes is there for the next one, whatever kind of volume it is."""

from tests.cluster.cases.namespaces import Namespace
from tests.cluster.cases.objects import Manifest, Use, claim, pod, shipped_class

SIZE = "300Mi"
IMAGES = ("ext4", "xfs", "btrfs")


def test_data_outlives_its_pod_in_images_and_on_raw_block(namespace: Namespace) -> None:
    uses = {name: Use(name) for name in IMAGES} | {"block": Use("block", "/dev/data", block=True)}
    claims = [
        *(claim(name, shipped_class(name), SIZE) for name in IMAGES),
        claim("block", shipped_class("ext4"), SIZE, block=True),
    ]
    _write_and_look_again(namespace, uses, claims)
    assert namespace.shell("block", "blockdev --getsize64 /dev/data") == str(300 << 20)
    assert {name: namespace.mount(name, "/data")[0] for name in IMAGES} == {
        name: name for name in IMAGES
    }


def test_data_outlives_its_pod_in_a_directory_whose_size_is_not_enforced(
    namespace: Namespace,
) -> None:
    # The shipped configuration has one pool, here on xfs, which cannot hold directories to a size.
    directory = namespace.add_class("free", {"kind": "directory", "enforceSize": "false"})
    _write_and_look_again(namespace, {"free": Use("free")}, [claim("free", directory, SIZE)])


def _write_and_look_again(
    namespace: Namespace, uses: dict[str, Use], claims: list[Manifest]
) -> None:
    pods = [pod(name, use) for name, use in uses.items()]
    namespace.start(*pods, *claims)
    first = _identities(namespace)
    sums = {name: namespace.shell(name, _write(use)) for name, use in uses.items()}
    assert len(set(sums.values())) == len(uses)

    namespace.delete(*(f"pod/{name}" for name in uses))
    namespace.start(*pods)
    assert not first & _identities(namespace)
    assert {name: namespace.shell(name, _sum(use)) for name, use in uses.items()} == sums


def _write(use: Use) -> str:
    target = use.path if use.block else f"{use.path}/file"
    random = f"dd if=/dev/urandom of={target} bs=1M count=8 conv=fsync 2> /dev/null"
    return f"{random}; {_sum(use)}"


def _sum(use: Use) -> str:
    source = use.path if use.block else f"{use.path}/file"
    return f"dd if={source} bs=1M count=8 2> /dev/null | sha256sum"


def _identities(namespace: Namespace) -> set[str]:
    return {each["metadata"]["uid"] for each in namespace.get("pods")["items"]}
