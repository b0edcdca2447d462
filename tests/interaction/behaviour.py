"""What a client may rely on, as data; that it holds is for the tests that carry its id."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from support.server import REVISIONS

ROOT = Path(__file__).parents[2]
"""The repository."""

ID = re.compile(r"[a-z]+(-[a-z]+)*(\.[a-z0-9]+(-[a-z0-9]+)*)+")
"""`area.subject` or `area.subject.what`: `tools.call.unknown-tool`."""

_SOURCES = (
    r"diagrams: (?P<diagram>.+)",
    rf"MCP (?P<revision>{'|'.join(REVISIONS)}) (basic|server|client|changelog|schema)(/[a-z]+(-[a-z]+)*)*",
    r"SEP-\d+",
    r"JSON-RPC 2\.0 §\d",
    r"OpenTelemetry (semantic conventions|protocol)",
    r"(?P<page>(docs/.+|benchmarks/README|README|SECURITY)\.md)",
)
_SOURCE = [re.compile(pattern) for pattern in _SOURCES]


@dataclass(frozen=True, slots=True)
class Behaviour:
    """One thing that the server shows.

    Attributes:
        id: what the marker of a test names.
        source: who demands it; several stand apart by `; `. Of the protocol's revisions the newest that says so.
        sentence: what is so, seen from outside.
        gap: why nothing shows it, where it is not there (yet); then no test may claim it.
    """

    id: str
    source: str
    sentence: str
    gap: str | None = None


def complaints_about_source(source: str, diagrams: Sequence[str]) -> list[str]:
    """What is wrong with each of the references; a page that is named must exist."""
    wrong: list[str] = []
    for reference in source.split("; "):
        match = next((match for pattern in _SOURCE if (match := pattern.fullmatch(reference))), None)
        if match is None:
            wrong.append(f"{reference!r} has none of the known forms")
            continue
        named = match.groupdict()
        if (diagram := named.get("diagram")) and diagram not in diagrams:
            wrong.append(f"there is no diagram {diagram!r}")
        if (page := named.get("page")) and not (ROOT / page).is_file():
            wrong.append(f"there is no page {page!r}")
    return wrong
