"""csi.pool.index: the records of a shelf by key, by age and by lender."""

import pytest

from csi.model import Access, Kind, Snapshot
from csi.pool.index import Index


def snapshot(number: int, source: str = "", held: int = 0) -> Snapshot:
    return Snapshot(
        id=f"snap-{number}",
        name=str(number),
        created_ns=number,
        source_volume_id=source,
        kind=Kind.IMAGE,
        access=Access.FILESYSTEM,
        size_bytes=1,
        held_bytes=held,
    )


@pytest.fixture
def index() -> Index[Snapshot]:
    index: Index[Snapshot] = Index()
    index.fill({"b": snapshot(2, "x", 20), "a": snapshot(1, "x", 10), "c": snapshot(3)})
    return index


def order(index: Index[Snapshot]) -> list[str]:
    return [key for (_, key), _ in index.after(None)]


def test_in_the_order_of_creation(index: Index[Snapshot]) -> None:
    assert order(index) == ["a", "b", "c"]
    index.put("d", snapshot(2))
    assert order(index) == ["a", "b", "d", "c"]
    assert [key for (_, key), _ in index.after((2, "b"))] == ["d", "c"]


def test_replaced_where_it_stands(index: Index[Snapshot]) -> None:
    index.put("b", snapshot(2, "x", 5))
    assert (len(index), order(index)) == (3, ["a", "b", "c"])
    assert index.lent_by("x") == 15


def test_what_lenders_are_charged_for(index: Index[Snapshot]) -> None:
    assert (index.lent_by("x"), index.lent_by("y"), index.lenders()) == (30, 0, ["x"])
    index.put("d", snapshot(4, "y", 7))
    index.remove("a")
    assert (index.lent_by("x"), index.lent_by("y")) == (20, 7)
    index.remove("b")
    assert index.lenders() == ["y"]
    index.fill({})
    assert (index.lenders(), len(index), order(index)) == ([], 0, [])


def test_struck_out(index: Index[Snapshot]) -> None:
    index.remove("b")
    assert (index.get("b"), order(index)) == (None, ["a", "c"])
    with pytest.raises(KeyError):
        index.remove("b")
