from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfo_mcp.application.pages import Place, page_of
from tfo_mcp.domain.errors import UnknownCursor

names = st.lists(st.text(max_size=5), unique=True, max_size=30)


def name(item: str) -> str:
    return item


@pytest.mark.behaviour("pagination.pages")
@given(items=names, size=st.integers(1, 8))
def test_all_pages_together_are_the_list(items: list[str], size: int) -> None:
    seen: list[str] = []
    cursor = None
    while True:
        page = page_of("things", items, cursor, size, name)
        assert len(page.items) <= size
        seen += page.items
        cursor = page.next_cursor
        if cursor is None:
            break
        assert len(page.items) == size
        with pytest.raises(UnknownCursor):
            page_of("others", items, cursor, size, name)
    assert seen == items


@given(cursor=st.text(max_size=60))
def test_what_was_never_given_out_is_refused(cursor: str) -> None:
    with pytest.raises(UnknownCursor):
        page_of("things", ["a", "b"], cursor, 1, name)


def test_a_cursor_stands_for_one_place_in_one_spelling() -> None:
    cursor = Place("things", 1, "a").cursor
    assert page_of("things", ["a", "b"], cursor, 1, name).items == ["b"]
    for other in (f" {cursor}", f"{cursor}\n", f"{cursor}=", cursor.replace("=", ""), cursor.swapcase()):
        assert other == cursor or _is_refused(other)
    # Not one for a list that has become another meanwhile.
    for changed in (["x", "b"], ["a"], []):
        with pytest.raises(UnknownCursor):
            page_of("things", changed, cursor, 1, name)


def _is_refused(cursor: str) -> bool:
    with pytest.raises(UnknownCursor):
        page_of("things", ["a", "b"], cursor, 1, name)
    return True
