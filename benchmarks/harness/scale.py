"""How long a run shall be."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """What scenarios size themselves by.

    Attributes:
        rounds: of calls.
        calls: in one round.
        starts: of a server.
        turns: of one conversation.
        conversations: so long ones.
    """

    rounds: int
    calls: int
    starts: int
    turns: int
    conversations: int


FULL = Scale(rounds=7, calls=4000, starts=15, turns=500, conversations=3)
QUICK = Scale(rounds=3, calls=1500, starts=5, turns=500, conversations=1)
SMOKE = Scale(rounds=1, calls=200, starts=1, turns=30, conversations=1)
"""For the test that the harness still works; its figures mean nothing."""
