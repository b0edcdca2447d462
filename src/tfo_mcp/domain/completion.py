"""What could stand where somebody has begun to write: the values of a prompt's argument or a template's variable."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

MOST_VALUES: Final = 100
"""Values of one completion, at most; the protocol's own limit."""


@dataclass(frozen=True, slots=True)
class Completion:
    """Values that begin with what was written.

    Attributes:
        total: how many there are in all, None where nobody counted them.
        has_more: whether there are more than these.
    """

    values: Sequence[str]
    total: int | None
    has_more: bool


def complete_from(known: Iterable[str], written: str) -> Completion:
    """Those of `known` that begin with `written`, whatever the case, in their order."""
    matches = [value for value in known if value.casefold().startswith(written.casefold())]
    return Completion(matches[:MOST_VALUES], len(matches), len(matches) > MOST_VALUES)


def first_of(matches: Sequence[str], *, complete: bool = True) -> Completion:
    """As many of `matches` as may be; whoever found them stopped once there was one more.

    Where not everything was looked at that could match, they are not `complete`.
    """
    has_more = len(matches) > MOST_VALUES or not complete
    return Completion(matches[:MOST_VALUES], None if has_more else len(matches), has_more)
