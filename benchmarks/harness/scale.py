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
        paced_rounds: of calls at a steady rate.
        paced_seconds: of one such round.
        flood_seconds: of calls as fast as they are answered.
    """

    rounds: int
    calls: int
    starts: int
    turns: int
    conversations: int
    paced_rounds: int
    paced_seconds: float
    flood_seconds: float


FULL = Scale(
    rounds=7, calls=4000, starts=15, turns=500, conversations=3, paced_rounds=5, paced_seconds=6, flood_seconds=60
)
QUICK = Scale(
    rounds=3, calls=1500, starts=5, turns=500, conversations=1, paced_rounds=3, paced_seconds=4, flood_seconds=5
)
SMOKE = Scale(
    rounds=1, calls=200, starts=1, turns=30, conversations=1, paced_rounds=1, paced_seconds=0.5, flood_seconds=0.5
)
"""For the test that the harness still works; its figures mean nothing."""
