"""The spans that arrived, as trees."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from tfo_mcp.application.attributes import ERROR_TYPE, INPUT_TOKENS, OUTPUT_TOKENS

if TYPE_CHECKING:
    from tfo_mcp.infrastructure.otlp_receiver import OtlpReceiver, ReceivedSpan

_TOKENS = {"in": INPUT_TOKENS, "out": OUTPUT_TOKENS}
_NAME_WIDTH = 60


def print_traces(receiver: OtlpReceiver, endpoint: str) -> bool:
    """Print every trace as a tree with durations and tokens, as `receiver` at `endpoint` received them.

    Returns:
        Whether what the demonstration did is there: tool calls, a failure, a cancellation, Claude's requests.
    """
    spans = receiver.spans()
    counts = f"{len(spans)} spans, {len(receiver.metrics())} metrics and {len(receiver.logs())} log records"
    click.echo(f"What the server recorded of itself: {counts}, by OTLP at {endpoint}")
    children: dict[str, list[ReceivedSpan]] = defaultdict(list)
    known = {span["span_id"] for span in spans}
    for span in sorted(spans, key=lambda span: span["start"]):
        children[span["parent_id"] if span["parent_id"] in known else ""].append(span)
    for root in children[""]:
        click.echo()
        _print(root, children, "", "")
    names = {span["name"] for span in spans}
    outcomes = {span["attributes"].get("outcome") for span in spans}
    return {"tools.execute", "claude.request", "tools/call read_file"} <= names and {"failed", "cancelled"} <= outcomes


def _print(span: ReceivedSpan, children: Mapping[str, Sequence[ReceivedSpan]], here: str, below: str) -> None:
    click.echo(
        f"{here}{span['name']:<{max(1, _NAME_WIDTH - len(here))}} {span['duration'] * 1000:>9.1f} ms{_notes(span)}"
    )
    own = children.get(span["span_id"], ())
    for number, child in enumerate(own, start=1):
        last = number == len(own)
        _print(child, children, below + ("└─ " if last else "├─ "), below + ("   " if last else "│  "))


def _notes(span: ReceivedSpan) -> str:
    attributes = span["attributes"]
    notes = [f"{attributes[key]} tokens {label}" for label, key in _TOKENS.items() if key in attributes]
    outcome = attributes.get("outcome")
    if outcome and outcome != "completed":
        error = attributes.get(ERROR_TYPE)
        notes.append(f"{outcome} ({error})" if error else outcome)
    return f"   {', '.join(notes)}" if notes else ""
