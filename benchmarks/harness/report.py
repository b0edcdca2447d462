"""Results as JSON, which holds nothing that tells one machine from another of its kind, and as a table."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.contest import Result
from harness.peer import Field


def as_json(scenario: str, taking_part: Field, results: Sequence[Result]) -> dict[str, Any]:
    """Everything about one scenario, ready to be kept; `load` is what the system says of the last 15 minutes."""
    return {
        "scenario": scenario,
        "date": datetime.now(UTC).date().isoformat(),
        "command": "make bench",
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[-1], 1),
        "packages": {peer.name: dict(peer.packages) for peer in taking_part.peers},
        "absent": dict(taking_part.absent),
        "contests": {
            result.contest.name: {
                "rounds": result.contest.rounds,
                **result.contest.facts,
                "figures": _plain(result.figures),
                f"ratios of {taking_part.peers[0].name} to": _plain(result.ratios),
                **(
                    {f"differences of {taking_part.peers[0].name} from": _plain(result.differences)}
                    if result.differences
                    else {}
                ),
            }
            for result in results
        },
    }


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Keep it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")


def table(result: Result) -> Iterator[str]:
    """Lines for a reader: medians with their ranges, then the ratios and the differences."""
    contest = result.contest
    told = ", ".join(f"{name}: {count:,}" for name, count in {**contest.facts, "rounds": contest.rounds}.items())
    yield f"{contest.name} ({told}): median (lowest … highest)"
    columns = list(next(iter(result.figures.values())))
    yield from _grid(
        ["", *columns],
        [[name, *(str(figures.get(column, "")) for column in columns)] for name, figures in result.figures.items()],
    )
    yield ""
    first = next(iter(result.figures))
    for sign, compared in (("÷", result.ratios), ("-", result.differences)):
        if compared:
            yield f"{contest.name}: {first} {sign} the other, round by round"
            others = list(next(iter(compared.values())))
            yield from _grid(
                ["", *compared],
                [[other, *(str(spreads.get(other, "")) for spreads in compared.values())] for other in others],
            )
            yield ""


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        first, *rest = (
            cell.ljust(width) if not at else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join(("", first, *rest)).rstrip()


def _plain(figures: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    return {name: {figure: asdict(spread) for figure, spread in spreads.items()} for name, spreads in figures.items()}
