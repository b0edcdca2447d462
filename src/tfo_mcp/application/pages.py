"""Lists in pages. A cursor says which list it belongs to, how much of it was given, and what came last."""

from __future__ import annotations

import binascii
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from tfo_mcp.domain.errors import UnknownCursor

T = TypeVar("T")

_MAX_CURSOR: Final = 2000
"""Characters; ours are much shorter."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some items of a list, and what to ask with for those behind them; None at the end."""

    items: Sequence[T]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page begins: behind `count` items, the last of which is called `last`."""

    listed: str
    count: int = 0
    last: str = ""

    @classmethod
    def of(cls, listed: str, cursor: str | None) -> Place:
        """The place in the list `listed` that `cursor` stands for.

        Raises:
            UnknownCursor: this server gives no such cursor out, or for another list.
        """
        if cursor is None:
            return cls(listed)
        try:
            _, count, last = json.loads(urlsafe_b64decode(cursor[:_MAX_CURSOR].encode("ascii")))
        except (ValueError, TypeError, RecursionError, binascii.Error) as error:
            raise UnknownCursor(cursor) from error
        place = cls(listed, count, last)
        well_formed = type(count) is int and count > 0 and isinstance(last, str)
        if not well_formed or place.cursor != cursor:  # another list's place has another cursor
            raise UnknownCursor(cursor)
        return place

    @property
    def cursor(self) -> str:
        """The place as clients are given it."""
        text = json.dumps([self.listed, self.count, self.last], separators=(",", ":"))
        return urlsafe_b64encode(text.encode("ascii")).decode("ascii")

    def page(self, following: Sequence[T], size: int, name: Callable[[T], str]) -> Page[T]:
        """The first `size` of the items that follow here; `following` needs one more to tell whether it is the end."""
        shown = following[:size]
        if len(following) == len(shown):
            return Page(shown, None)
        return Page(shown, Place(self.listed, self.count + size, name(shown[-1])).cursor)


def page_of(listed: str, items: Sequence[T], cursor: str | None, size: int, name: Callable[[T], str]) -> Page[T]:
    """The page of a list that does not change.

    Raises:
        UnknownCursor: it was not given out for this list.
    """
    place = Place.of(listed, cursor)
    if place.count and (place.count >= len(items) or name(items[place.count - 1]) != place.last):
        raise UnknownCursor(place.cursor)
    return place.page(items[place.count : place.count + size + 1], size, name)
