"""How the pipeline's thread shares the interpreter with the one that answers calls."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

_T = TypeVar("_T")

_FEW: Final = 512
"""Items up to which there is time: with more, to be done soon counts for more."""
_TURN: Final = 4
"""Items, some 40 microseconds."""


def in_turns(items: Sequence[_T]) -> Iterator[_T]:
    """`items`, with the interpreter's lock offered to others now and then.

    Without that a call which arrives meanwhile would wait for all of them: Python lets another thread run only after
    5 milliseconds, unless this one waits for something.
    """
    if len(items) > _FEW:
        yield from items
        return
    for number, item in enumerate(items, 1):
        yield item
        if not number % _TURN:
            time.sleep(0)
