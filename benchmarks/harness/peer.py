"""Who takes part. A module in `peers/` says how to start one server or several; nothing else knows them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from harness.errors import Unavailable

FOLDER = Path(__file__).parents[1]
"""Of the benchmarks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One server that speaks MCP on stdin and stdout.

    Attributes:
        name: in tables and results.
        tools: those that can be asked of it, of `echo(message)` and `claude_conversation(message, conversation_id)`.
        command: starts it, as its documentation says.
        environment: beside the little that every server gets.
        prefix: what its echo puts before the message.
        collector_variable: of its environment, where it takes a collector's endpoint; without one it exports nothing.
        packages: name to version of what it is made of.
    """

    name: str
    command: Sequence[str]
    tools: frozenset[str] = frozenset({"echo"})
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    prefix: str = ""
    collector_variable: str | None = None
    packages: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def exports(self) -> bool:
        """Whether the collector hears of its calls."""
        return self.collector_variable is not None


@dataclass(frozen=True, slots=True)
class Field:
    """All who take part, and whom it would have wanted but cannot have: name to why."""

    peers: Sequence[Peer]
    absent: Mapping[str, str]

    def named(self, name: str) -> Peer:
        """The one of this name."""
        return next(peer for peer in self.peers if peer.name == name)


def gather(modules: Sequence[str]) -> Field:
    """The peers of these modules of `peers/`. One that is not there is left out, and said so."""
    peers: list[Peer] = []
    absent: dict[str, str] = {}
    for module in modules:
        try:
            peers += import_module(f"peers.{module}").peers()
        except Unavailable as why:
            absent[module] = str(why)
    return Field(peers, absent)


def known_modules() -> Iterator[str]:
    """Every module in `peers/`, ours first."""
    names = sorted(path.stem for path in (FOLDER / "peers").glob("*.py"))
    yield from sorted(names, key=lambda name: name != "ours")
