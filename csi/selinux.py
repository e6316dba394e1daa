"""SELinux contexts, as the kubelet asks for one by a mount option and the kernel shows it.

With `seLinuxMount` in the CSIDriver object the kubelet appends `context="<label>"` to the mount
options, quotes included, because categories are listed with commas (AddSELinuxMountOption in
pkg/volume/util/selinux.go of Kubernetes). Most of the label comes from the pod, whose author may
write what he likes into it. It ends up in the data of mount(2), where a quote, a comma or a blank
could begin an option of its own; so only a whole context of the plain form is taken, and all else
is refused.
"""

from __future__ import annotations

import re

from csi.errors import InvalidRequest

_OPTION = "context="
_NAME = r"[A-Za-z_][A-Za-z0-9_.-]{0,63}"
_CATEGORIES = r"c\d{1,4}(?:[.,]c\d{1,4}){0,255}"
_LEVEL = rf"s\d{{1,3}}(?::{_CATEGORIES})?"
_CONTEXT = re.compile(rf"{_NAME}:{_NAME}:{_NAME}(?::{_LEVEL}(?:-{_LEVEL})?)?", re.ASCII)

Canonical = tuple[str, tuple[tuple[str, frozenset[int]], ...]]


def is_context_option(flag: str) -> bool:
    """Whether a mount flag sets out to be `context=`; it may still be malformed."""
    return flag.startswith(_OPTION)


def parse_context_option(flag: str) -> str:
    """Returns the context that a mount flag names.

    Raises:
        InvalidRequest: It is not one whole context in quotes.
    """
    value = flag.removeprefix(_OPTION)
    context = value[1:-1]
    if len(value) < 2 or value != f'"{context}"' or not _CONTEXT.fullmatch(context):
        raise InvalidRequest(
            'mount flag context= has to be one SELinux context in quotes, such as "system_u:'
            'object_r:container_file_t:s0:c1,c2", and nothing else'
        )
    return context


def context_option(context: str) -> str:
    """Returns the word for mount(2) that makes a filesystem show a context for all its files."""
    return f'{_OPTION}"{context}"'


def shown_context(super_options: frozenset[str]) -> str:
    """Returns the context that a mounted filesystem has by option, or nothing."""
    for option in super_options:
        if option.startswith(_OPTION):
            return option.removeprefix(_OPTION).strip('"')
    return ""


def is_same(one: str, other: str) -> bool:
    """Whether two contexts mean the same: the kernel writes categories in a way of its own.

    Three in a row become a range (`c1,c2,c3` is `c1.c3`), and a level is left out as the end of a
    range that begins with it (`s0-s0` is `s0`).
    """
    return one == other or _canonical(one) == _canonical(other)


def _canonical(context: str) -> Canonical | str:
    if not _CONTEXT.fullmatch(context):
        return context
    user, role, kind, *level = context.split(":", 3)
    ends = tuple(dict.fromkeys(_level(end) for end in level[0].split("-"))) if level else ()
    return f"{user}:{role}:{kind}", ends


def _level(text: str) -> tuple[str, frozenset[int]]:
    sensitivity, _, categories = text.partition(":")
    found: set[int] = set()
    for part in filter(None, categories.split(",")):
        first, _, last = (word.removeprefix("c") for word in part.partition("."))
        found.update(range(int(first), int(last or first) + 1))
    return sensitivity, frozenset(found)
