"""`docs/reference/behaviours.md`, written from the manifest: `python -m interaction.reference`, in `tests`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from interaction.behaviour import ROOT, Behaviour
from interaction.manifest import ALL, AREAS
from interaction.shown import Claim, read_claims

PAGE = ROOT / "docs" / "reference" / "behaviours.md"

_TOP = """\
# Behaviours

What the server promises, who demands it, and which test shows it. Written by `make docs` from `tests/interaction`;
a test fails when this page is older than that.

A source is a diagram of the data flow (`diagrams: …`), a page of the MCP specification in the newest revision that
says so (`MCP 2025-11-25 server/tools`), one of its enhancement proposals (`SEP-1303`), another specification, or a
page of this repository.
"""

_GAPS = """\
## Not there

What one could expect and does not get, and why.

| id | source | it would be | why not |
| --- | --- | --- | --- |
"""


def render(claims: Sequence[Claim]) -> str:
    """The page."""
    shown: dict[str, list[Claim]] = defaultdict(list)
    for test in claims:
        for id_ in test.ids:
            shown[id_].append(test)
    lines = [_TOP]
    for area, behaviours in AREAS.items():
        rows = [_row(behaviour, shown[behaviour.id]) for behaviour in behaviours if behaviour.gap is None]
        if rows:
            lines += [f"## {area}\n", "| id | source | what is so | shown by |", "| --- | --- | --- | --- |", *rows, ""]
    gaps = (behaviour for behaviour in ALL if behaviour.gap is not None)
    return "\n".join([*lines, _GAPS + "".join(_gap_rows(gaps))])


def _row(behaviour: Behaviour, claims: Sequence[Claim]) -> str:
    links = "<br>".join(f"[{test.name}](../../tests/{test.file})" for test in claims)
    return f"| `{behaviour.id}` | {behaviour.source} | {behaviour.sentence} | {links} |"


def _gap_rows(gaps: Iterator[Behaviour]) -> Iterator[str]:
    for behaviour in gaps:
        yield f"| `{behaviour.id}` | {behaviour.source} | {behaviour.sentence} | {behaviour.gap} |\n"


if __name__ == "__main__":
    PAGE.write_text(render(read_claims()), encoding="utf-8")
