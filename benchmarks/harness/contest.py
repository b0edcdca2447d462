"""Peers against each other: in turns, in an order that rotates, so that whatever the machine does hits them all."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from harness.errors import WrongAnswer
from harness.peer import Peer
from harness.surroundings import Surroundings

Sample: TypeAlias = Mapping[str, float]
"""What one peer has shown in one round: figure to value."""


AGAIN = " again"
"""How the name of a peer ends that takes part twice."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over all rounds: never a number without its range."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(*(_rounded(value) for value in (statistics.median(values), min(values), max(values))))

    def __str__(self) -> str:
        return f"{self.median:g} ({self.lowest:g} … {self.highest:g})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """One thing that is measured of every peer.

    Attributes:
        measure: takes one sample of a peer.
        tool: who has it takes part.
        compared: the figures of which the ratios are taken.
        rehearsals: rounds that are thrown away, to warm what the machine caches.
        facts: what else was the same for all.
        growth: two figures, the earlier and the later one; it is told how many times the earlier one the later one
            is, of what the first peer takes beyond another.
        differences: the figures of which it is told how much the first peer has beyond another.
        cast: who takes part, made of all who are there; None: everyone who has the tool.
    """

    name: str
    measure: Callable[[Peer, Surroundings], Sample]
    compared: Sequence[str]
    rounds: int
    rehearsals: int = 0
    tool: str = "echo"
    facts: Mapping[str, int] = field(default_factory=dict[str, int])
    growth: tuple[str, str] | None = None
    differences: Sequence[str] = ()
    cast: Callable[[Sequence[Peer]], Sequence[Peer]] | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What came out.

    Attributes:
        figures: peer to figure to spread.
        ratios: figure to other peer to the spread of (the first peer's ÷ the other's), taken within each round.
            With them stands the contest's growth.
        differences: the same of (the first peer's - the other's).
    """

    contest: Contest
    figures: Mapping[str, Mapping[str, Spread]]
    ratios: Mapping[str, Mapping[str, Spread]]
    differences: Mapping[str, Mapping[str, Spread]]


def again(peer: Peer) -> Peer:
    """The same server under another name: its ratio to itself is what a ratio of nothing looks like."""
    return replace(peer, name=f"{peer.name}{AGAIN}")


def hold(contest: Contest, peers: Sequence[Peer], around: Surroundings) -> Result:
    """Measure everyone who takes part, in every round.

    Raises:
        WrongAnswer: of one peer that did not do what it was asked.
    """
    peers = contest.cast(peers) if contest.cast else [peer for peer in peers if contest.tool in peer.tools]
    samples: dict[str, list[Sample]] = {peer.name: [] for peer in peers}
    for round_ in range(-contest.rehearsals, contest.rounds):
        for peer in (*peers[round_ % len(peers) :], *peers[: round_ % len(peers)]):
            print(
                f"\r\033[K{contest.name}: round {round_ + 1} of {contest.rounds}, {peer.name} ", end="", file=sys.stderr
            )
            try:
                sample = contest.measure(peer, around)
            except (WrongAnswer, TimeoutError) as why:
                raise WrongAnswer(f"{peer.name}, {contest.name}: {why}") from why
            if round_ >= 0:
                samples[peer.name].append(sample)
    print("\r\033[K", end="", file=sys.stderr)
    figures = {
        name: {figure: Spread.of([sample[figure] for sample in taken]) for figure in taken[0]}
        for name, taken in samples.items()
    }
    first, *others = (peer.name for peer in peers)
    pairs = {other: list(zip(samples[first], samples[other], strict=True)) for other in others}
    ratios = {
        figure: {other: Spread.of([ours[figure] / theirs[figure] for ours, theirs in pairs[other]]) for other in others}
        for figure in contest.compared
    }
    differences = {
        figure: {other: Spread.of([ours[figure] - theirs[figure] for ours, theirs in pairs[other]]) for other in others}
        for figure in contest.differences
    }
    if contest.growth is not None:
        ratios["growth"] = {
            other: _growth(samples[first], samples[other], *contest.growth)
            for other in others
            if not other.endswith(AGAIN)  # nothing is beyond it but noise
        }
    return Result(contest, figures, ratios, differences)


def _growth(ours: Sequence[Sample], theirs: Sequence[Sample], early: str, late: str) -> Spread:
    return Spread.of(
        [(our[late] - their[late]) / (our[early] - their[early]) for our, their in zip(ours, theirs, strict=True)]
    )


def _rounded(value: float) -> float:
    """Four digits that count: the rest is noise."""
    return float(f"{value:.4g}")
