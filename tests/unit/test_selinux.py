"""SELinux contexts: what is taken for one, what is refused, and which mean the same."""

import pytest

from csi.errors import InvalidRequest
from csi.linux import mounts
from csi.selinux import context_option, is_same, parse_context_option, shown_context

# What AddSELinuxMountOption of the kubelet makes of a label: fmt.Sprintf("context=%q", label).
LABELS = [
    "system_u:object_r:container_file_t:s0:c15,c25",
    "system_u:object_r:container_file_t:s0",
    "system_u:object_r:container_file_t:s0-s0:c0.c1023",
    "user_u:object_r:my-type.t_t:s15:c1,c3.c5,c1023",
    "system_u:object_r:container_file_t",
]


@pytest.mark.parametrize("label", LABELS)
def test_what_the_kubelet_sends_is_taken_and_handed_on(label: str) -> None:
    assert parse_context_option(f'context="{label}"') == label
    assert context_option(label) == f'context="{label}"'


GOOD = "system_u:object_r:container_file_t:s0:c1,c2"


@pytest.mark.parametrize(
    "flag",
    [
        "context=",
        'context=""',
        'context="',
        f"context={GOOD}",
        f'context="{GOOD}',
        f'context={GOOD}"',
        f"context='{GOOD}'",
        f'context="{GOOD}",dev',
        f'context="{GOOD},dev"',
        f'context="{GOOD}""',
        f'context="{GOOD}","',
        f'context="{GOOD}",context="{GOOD}"',
        f'context=" {GOOD}"',
        f'context="{GOOD} "',
        f'context="{GOOD}\n"',
        f'context="{GOOD}"\n',
        f'context="{GOOD}\x00"',
        f'context="{GOOD}\\"',
        'context="a:b"',
        'context="a:b:c:d"',
        'context="a:b:c:s0:c1,suid"',
        'context="a:b:c:s0:c1,"',
        'context="a:b:c:s0:"',
        'context="a:b:c:s0-"',
        'context="a:b:c:s0-s0-s0"',
        'context="a:b:c,d:s0"',
        'context="a:b:c\u0661:s0"',
        f'context="{"a" * 65}:b:c:s0"',
        f'context="a:b:c:s0:c0{",c1" * 256}"',
        f'fscontext="{GOOD}"',
    ],
)
def test_all_else_is_refused(flag: str) -> None:
    with pytest.raises(InvalidRequest, match="context="):
        parse_context_option(flag)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("u:r:t:s0:c1,c2,c3", "u:r:t:s0:c1.c3"),
        ("u:r:t:s0:c25,c15", "u:r:t:s0:c15,c25"),
        ("u:r:t:s0-s0", "u:r:t:s0"),
        ("u:r:t:s0-s0:c0,c1", "u:r:t:s0-s0:c1,c0"),
        ("", ""),
    ],
)
def test_what_means_the_same(one: str, other: str) -> None:
    assert is_same(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("u:r:t:s0:c1,c3", "u:r:t:s0:c1.c3"),
        ("u:r:t:s0", "u:r:t:s1"),
        ("u:r:t:s0", "u:r:t:s0-s0:c1"),
        ("u:r:t:s0", "u:r:t2:s0"),
        ("u:r:t", ""),
        ("unlabeled", "u:r:t:s0"),
    ],
)
def test_what_does_not(one: str, other: str) -> None:
    assert not is_same(one, other)
    assert not is_same(other, one)


@pytest.mark.parametrize("label", [LABELS[0], LABELS[1]])
def test_the_context_in_the_kernels_table(label: str) -> None:
    """SELinux quotes a context that has a comma, and no other (show_sid in hooks.c)."""
    shown = f'"{label}"' if "," in label else label
    line = f"36 35 7:0 / /mnt rw,nosuid - ext4 /dev/loop0 rw,context={shown},errors=continue"

    found = mounts._parsed(line)

    assert found is not None
    assert found.super_options == {"rw", f"context={shown}", "errors=continue"}
    assert shown_context(found.super_options) == label


def test_a_mount_without_a_context() -> None:
    assert shown_context(frozenset({"rw", "seclabel"})) == ""
