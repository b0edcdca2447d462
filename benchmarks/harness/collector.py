"""A collector that counts, as a process of its own: whoever exports must have exported every call."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager

from harness.errors import WrongAnswer
from harness.peer import FOLDER

_PATIENCE = 20.0
"""Seconds from the last call to its arrival."""

_LOOK = 0.05
"""Seconds between two questions."""

_QUIET = 2.5
"""Seconds: a sender lets spans wait for one, for others to share an export."""


class Collector:
    """Counts calls of tools; begins anew with each server."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        if process.stdin is None or process.stdout is None:
            raise ValueError("the collector is asked over pipes")
        self._stdin = process.stdin
        self._stdout = process.stdout
        self.endpoint = self._stdout.readline().strip()
        """`http://host:port`."""

    def wait_for(self, calls: int) -> None:
        """Wait until the spans of so many calls have arrived, or are known to have been dropped.

        Raises:
            WrongAnswer: they do not come, or there are more.
        """
        until = time.monotonic() + _PATIENCE
        while (arrived := self._spans()) < calls:
            if time.monotonic() > until:
                raise WrongAnswer(f"of {calls} calls only {arrived} were exported")
            time.sleep(_LOOK)

    def settle(self, calls: int) -> float:
        """After the server's end: the share of the calls whose spans were dropped. Begins anew.

        Raises:
            WrongAnswer: the server counted other than `calls` calls, or spans are neither here nor counted as dropped.
        """
        counts = self._ask("count")
        if counts["calls"] != calls or counts["spans"] + counts["dropped"] < calls:
            raise WrongAnswer(f"after {calls} calls the collector has {dict(counts)}")
        self._ask("forget")
        return max(0, calls - counts["spans"]) / calls if calls else 0.0

    def account(self, calls: int, spans: int) -> float:
        """As `settle`, of all spans and exactly: the share of them that was dropped.

        Raises:
            WrongAnswer: the counted calls are others, or of the `spans` that were recorded one is neither here nor
                counted as dropped, or is here and counted as dropped.
        """
        counts = self._ask("count")
        if counts["calls"] != calls or counts["spans of all"] + counts["dropped"] != spans:
            raise WrongAnswer(f"after {calls} calls and {spans} spans the collector has {dict(counts)}")
        self._ask("forget")
        return counts["dropped"] / spans if spans else 0.0

    def wait_until_quiet(self) -> None:
        """Wait until no more spans have come for a while that is longer than any pause of a sender that is well."""
        before, since = -1, time.monotonic()
        while time.monotonic() - since < _QUIET:
            if (arrived := self._ask("count")["spans of all"]) != before:
                before, since = arrived, time.monotonic()
            time.sleep(_LOOK)

    def _spans(self) -> int:
        counts = self._ask("count")
        return counts["spans"] + counts["dropped"]

    def _ask(self, what: str) -> Mapping[str, int]:
        self._stdin.write(f"{what}\n")
        self._stdin.flush()
        return json.loads(self._stdout.readline())


@contextmanager
def collecting() -> Generator[Collector]:
    """A collector, for as long as the block runs."""
    program = FOLDER / "programs" / "counting_collector.py"
    with subprocess.Popen(
        [sys.executable, str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Collector(process)
        finally:
            process.kill()
