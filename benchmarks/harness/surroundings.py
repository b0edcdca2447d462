"""What stands around the servers during a run: a collector, and for each a home that lasts from start to start."""

from __future__ import annotations

import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.collector import Collector, collecting
from harness.peer import Peer


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The same for all rounds: a server finds what it left, as a user's does."""

    collector: Collector
    folder: Path

    def home_of(self, peer: Peer) -> Path:
        """The peer's home and working directory."""
        home = self.folder / peer.name.replace(" ", "-")
        home.mkdir(exist_ok=True)
        return home


@contextmanager
def surroundings() -> Generator[Surroundings]:
    """New ones, for as long as the block runs."""
    with tempfile.TemporaryDirectory(prefix="tfo-mcp-benchmark-") as folder, collecting() as collector:
        yield Surroundings(collector, Path(folder))
