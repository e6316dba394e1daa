"""What is so, as far as a caller can know: the state of some volumes and snapshots, as a value."""

from collections.abc import Mapping
from typing import NamedTuple, TypeVar

UNKNOWN_ID = "?"
"""The id of what a call may have made whose answer never came."""

NO_DATA = ""


class Volume(NamedTuple):
    """A volume.

    Attributes:
        id: Its id.
        size: Its size in bytes.
        source: The id of what it was made from, or nothing.
        token: What was written to it last.
        attached: Whether it is published to the node by the controller.
        staged: Whether it is staged.
        pods: Where it is published.
        loose: Whether it was unstaged while pods had it; its device may still be there then.
    """

    id: str
    size: int
    source: str = ""
    token: str = NO_DATA
    attached: bool = False
    staged: bool = False
    pods: frozenset[int] = frozenset()
    loose: bool = False

    @property
    def in_use(self) -> bool:
        """Whether it is on the node."""
        return self.staged or bool(self.pods)


class Snapshot(NamedTuple):
    """A snapshot: what was in its volume, that of a slot, at that moment, and how large it was."""

    id: str
    source: str
    slot: str
    size: int
    token: str


class Group(NamedTuple):
    """A group snapshot with its members; their ids follow from the answer."""

    id: str
    members: tuple[Snapshot, ...]


class Inline(NamedTuple):
    """A volume that a pod brought along, and whether its pod still has it."""

    mounted: bool = True


Thing = Volume | Snapshot | Group | Inline
T = TypeVar("T", Volume, Snapshot, Group)


class State:
    """What is in each slot, a name that a volume, snapshot, group or pod may have; a value."""

    def __init__(self, things: Mapping[str, Thing] | None = None) -> None:
        self.things: Mapping[str, Thing] = things or {}
        self._items = frozenset(self.things.items())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, State) and self._items == other._items

    def __hash__(self) -> int:
        return hash(self._items)

    def __repr__(self) -> str:
        return f"State({dict(sorted(self.things.items()))})"

    def having(self, slot: str, thing: Thing | None) -> "State":
        """Returns a copy that has something else, or nothing, in a slot."""
        things = {name: there for name, there in self.things.items() if name != slot}
        if thing is not None:
            things[slot] = thing
        return State(things)

    def rebooted(self) -> "State":
        """Returns what is left of all when the node has started anew."""
        return State({slot: _rebooted(thing) for slot, thing in self.things.items()})

    def volume(self, slot: str, volume_id: str | None = None) -> Volume | None:
        """Returns the volume in a slot if there is one and it has that id."""
        return _of_id(self._there(slot, Volume), volume_id)

    def snapshot(self, slot: str, snapshot_id: str | None = None) -> Snapshot | None:
        """Is `volume` for a snapshot."""
        return _of_id(self._there(slot, Snapshot), snapshot_id)

    def group(self, slot: str, group_id: str | None = None) -> Group | None:
        """Is `volume` for a group."""
        return _of_id(self._there(slot, Group), group_id)

    def _there(self, slot: str, sort: type[T]) -> T | None:
        thing = self.things.get(slot)
        return thing if isinstance(thing, sort) else None


def _of_id(thing: T | None, wanted: str | None) -> T | None:
    if thing is None or wanted is None or thing.id == wanted:
        return thing
    return None


def _rebooted(thing: Thing) -> Thing:
    if isinstance(thing, Volume):
        return thing._replace(staged=False, pods=frozenset(), loose=False)
    return Inline(mounted=False) if isinstance(thing, Inline) else thing
