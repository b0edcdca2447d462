"""The tools that ask what this server recorded of itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from tfo_mcp.application.telemetry_queries import (
    WINDOW,
    ExplainFailure,
    Failure,
    FindSlowCalls,
    GetTrace,
    QueryTelemetry,
    SummarizeTelemetry,
    Summary,
    seconds_of,
)
from tfo_mcp.application.telemetry_views import call_view, failure_view, span_within, summary_view
from tfo_mcp.domain.recorded import QueryAnswer, RecordedSpan, TraceExcerpt
from tfo_mcp.domain.tool import Tool, ToolAnnotations, ToolContext, ToolFunction, ToolMode, ToolResult
from tfo_mcp.infrastructure.tools.shapes import COUNT, TEXT, TEXT_OR_NULL, arguments_of, object_of
from tfo_mcp.infrastructure.tools.telemetry_text import (
    failure_text,
    slow_calls_text,
    summary_text,
    table_text,
    trace_text,
)

_DEFAULT_WINDOW: Final = "1h"
_LARGEST: Final = 200
"""Items that one call may ask for."""
_LAST: Final = 10**12
"""Where a page may begin; SQLite counts to some more."""

_READS: Final = ToolAnnotations(read_only=True, destructive=False, idempotent=True, open_world=False)


def telemetry_tools(*, max_page_bytes: int) -> list[Tool]:
    """`telemetry_summary`, `slow_calls`, `explain_failure`, `get_trace`, `query_telemetry`.

    Args:
        max_page_bytes: of text and structure together that one answer has.
    """
    room = max_page_bytes // 2

    return [
        _tool(
            "telemetry_summary",
            "Summarize what this server did",
            "Per method, tool and Claude model: calls, errors, p50/p95/p99 and tokens of a window of time, as this "
            "server recorded them. Begin here when asked how it is doing.",
            _SUMMARY_INPUT,
            _SUMMARY_OUTPUT,
            partial(_summarize, room=room),
        ),
        _tool(
            "slow_calls",
            "Find slow calls",
            "The slowest calls of a window of time, each with the trace_id for get_trace.",
            _SLOW_INPUT,
            _SLOW_OUTPUT,
            partial(_slow_calls, room=room),
        ),
        _tool(
            "explain_failure",
            "Explain a failed call",
            "Why a call failed, the last one or the one of a trace: what was called, at which stage it failed, the "
            "cause, the ids of the requests to Claude, and what has changed since it last worked.",
            _EXPLAIN_INPUT,
            _EXPLAIN_OUTPUT,
            partial(_explain, room=room),
        ),
        _tool(
            "get_trace",
            "Read a trace",
            "All operations of one trace in order: requests, tools, requests to Claude, and what libraries traced.",
            _TRACE_INPUT,
            _TRACE_OUTPUT,
            partial(_get_trace, room=room),
        ),
        _tool(
            "query_telemetry",
            "Query telemetry with SQL",
            _QUERY_DESCRIPTION,
            _QUERY_INPUT,
            _QUERY_OUTPUT,
            _query,
        ),
    ]


def _tool(
    name: str,
    title: str,
    description: str,
    takes: Mapping[str, Any],
    gives: Mapping[str, Any],
    run: ToolFunction,
) -> Tool:
    return Tool(
        name=name,
        title=title,
        description=description,
        input_schema=takes,
        output_schema=gives,
        run=run,
        mode=ToolMode.TASK,
        annotations=_READS,
        reads_telemetry=True,
    )


# --- what they take and give -------------------------------------------------------------------------

_QUERY_DESCRIPTION: Final = (
    "Read-only SQLite SELECT over what this server recorded. Views: requests(method, tool, session_id), "
    "tool_calls(tool, caller), claude_calls(conversation_id, request_model, response_model, input_tokens, "
    "output_tokens, cache_read_tokens, cache_write_tokens, events), spans(kind, name, method, tool, session_id, "
    "conversation_id, events), each also with trace_id, span_id, parent_id, started_at and ended_at (seconds since "
    "the epoch), started (ISO text), duration (seconds), outcome (completed, failed, timed_out, cancelled, invalid), "
    "is_error, error_type, attributes (JSON); sessions(session_id, client_name, client_version, protocol_version, "
    "started_at, ended_at); minutes(minute, kind, name, outcome, error_type, calls, seconds, longest, input_tokens, "
    "output_tokens, cache_read_tokens, cache_write_tokens), which reach further back."
)

_NUMBER: Mapping[str, Any] = {"type": "number"}
_ANY_OBJECT: Mapping[str, Any] = {"type": "object"}
_NEXT: Mapping[str, Any] = {"type": ["integer", "null"], "description": "The start of the next page; null at the end."}

_WINDOW: Mapping[str, Any] = {
    "type": "string",
    "description": f"How far back: minutes, hours or days, such as 15m, 6h or 7d. Left out: {_DEFAULT_WINDOW}.",
    "pattern": f"^{WINDOW}$",
}
_START: Mapping[str, Any] = {
    "type": "integer",
    "description": "next_start of the page before.",
    "minimum": 0,
    "maximum": _LAST,
}
_TOOL: Mapping[str, Any] = {"type": "string", "description": "Only calls of this tool.", "maxLength": 200}
_TRACE: Mapping[str, Any] = {"type": "string", "description": "32 hexadecimal digits.", "pattern": "^[0-9a-fA-F]{32}$"}


def _limit(what: str) -> Mapping[str, Any]:
    return {"type": "integer", "description": f"{what} at most.", "minimum": 1, "maximum": _LARGEST}


_SUMMARY_INPUT = arguments_of({"window": _WINDOW, "start": _START})
_SUMMARY_OUTPUT = object_of(
    {
        "since": TEXT,
        "until": TEXT,
        "operations": {
            "type": "array",
            "items": object_of(
                {
                    "kind": {"type": "string", "enum": ["request", "tool", "claude"]},
                    "name": {"type": "string", "description": "The method, the tool or the model."},
                    "calls": COUNT,
                    "errors": COUNT,
                    "cancelled": COUNT,
                    "p50_ms": _NUMBER,
                    "p95_ms": _NUMBER,
                    "p99_ms": _NUMBER,
                    "longest_ms": _NUMBER,
                    "errors_by_type": {"type": "object", "additionalProperties": COUNT},
                    "tokens": object_of(dict.fromkeys(("input", "output", "cache_read", "cache_write"), COUNT)),
                },
                optional=("tokens",),
            ),
        },
        "next_start": _NEXT,
    }
)

_CALL = object_of(
    {
        "trace_id": TEXT,
        "span_id": TEXT,
        "name": TEXT,
        "tool": TEXT_OR_NULL,
        "started_at": TEXT,
        "duration_ms": _NUMBER,
        "outcome": TEXT,
        "error_type": TEXT_OR_NULL,
    }
)
_SLOW_INPUT = arguments_of({"window": _WINDOW, "tool": _TOOL, "start": _START, "limit": _limit("Calls")})
_SLOW_OUTPUT = object_of({"calls": {"type": "array", "items": _CALL}, "next_start": _NEXT})

_EXPLAIN_INPUT = arguments_of({"trace_id": _TRACE, "tool": _TOOL})
_EXPLAIN_OUTPUT = object_of(
    {
        "call": _ANY_OBJECT,
        "stage": TEXT,
        "cause": _ANY_OBJECT,
        "meaning": TEXT_OR_NULL,
        "claude_attempts": {"type": "array", "items": _ANY_OBJECT},
        "claude_attempts_left_out": {**COUNT, "description": "Those before."},
        "last_worked_at": TEXT_OR_NULL,
        "failed_since": COUNT,
        "server_restarted_since": {"type": "boolean"},
        "changed_since": {"type": "array", "items": object_of({"what": TEXT, "from": True, "to": True})},
    },
    optional=(
        "call",
        "stage",
        "cause",
        "meaning",
        "claude_attempts",
        "claude_attempts_left_out",
        "last_worked_at",
        "failed_since",
        "server_restarted_since",
        "changed_since",
    ),
)

_TRACE_INPUT = arguments_of(
    {"trace_id": _TRACE, "start": _START, "limit": _limit("Operations")}, required=("trace_id",)
)
_TRACE_OUTPUT = object_of({"spans": {"type": "array", "items": _ANY_OBJECT}, "total": COUNT, "next_start": _NEXT})

_QUERY_INPUT = arguments_of(
    {"sql": {"type": "string", "description": "One SELECT.", "maxLength": 20_000}, "limit": _limit("Rows")},
    required=("sql",),
)
_QUERY_OUTPUT = object_of(
    {
        "columns": {"type": "array", "items": TEXT},
        "rows": {"type": "array", "items": {"type": "array"}},
        "complete": {"type": "boolean", "description": "False where there are more rows: use LIMIT and OFFSET."},
    }
)


# --- what they do ------------------------------------------------------------------------------------


def _window(arguments: Mapping[str, Any]) -> float:
    """Seconds."""
    return seconds_of(arguments.get("window", _DEFAULT_WINDOW))


async def _summarize(arguments: Mapping[str, Any], context: ToolContext, room: int) -> ToolResult:
    summary: Summary = await context.dispatch(SummarizeTelemetry(_window(arguments)))
    view = summary_view(summary)
    view["operations"], view["next_start"] = _page(view["operations"], int(arguments.get("start", 0)), room)
    return ToolResult(summary_text(view), structured=view)


async def _slow_calls(arguments: Mapping[str, Any], context: ToolContext, room: int) -> ToolResult:
    start, limit = int(arguments.get("start", 0)), int(arguments.get("limit", 20))
    found: Sequence[RecordedSpan] = await context.dispatch(
        FindSlowCalls(_window(arguments), arguments.get("tool"), start, limit + 1)
    )
    calls, cut = _fitting([call_view(span) for span in found[:limit]], room)
    more = cut or len(found) > limit
    structured = {"calls": calls, "next_start": start + len(calls) if more else None}
    return ToolResult(slow_calls_text(structured), structured=structured)


async def _explain(arguments: Mapping[str, Any], context: ToolContext, room: int) -> ToolResult:
    failure: Failure | None = await context.dispatch(ExplainFailure(arguments.get("trace_id"), arguments.get("tool")))
    if failure is None:
        return ToolResult("No call that failed is kept.", structured={})
    view = failure_view(failure, room // 4)
    return ToolResult(failure_text(view), structured=view)


async def _get_trace(arguments: Mapping[str, Any], context: ToolContext, room: int) -> ToolResult:
    start, limit = int(arguments.get("start", 0)), int(arguments.get("limit", 100))
    found: TraceExcerpt = await context.dispatch(GetTrace(arguments["trace_id"], start, limit))
    spans, _ = _fitting([span_within(span, room) for span in found.spans], room)
    end = start + len(spans)
    structured = {"spans": spans, "total": found.total, "next_start": end if end < found.total else None}
    return ToolResult(trace_text(found.spans[: len(spans)], structured), structured=structured)


async def _query(arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
    answer: QueryAnswer = await context.dispatch(QueryTelemetry(arguments["sql"], int(arguments.get("limit", 100))))
    structured = {"columns": answer.columns, "rows": answer.rows, "complete": answer.complete}
    return ToolResult(table_text(answer), structured=structured)


def _page(items: Sequence[dict[str, Any]], start: int, room: int) -> tuple[list[dict[str, Any]], int | None]:
    """Those from `start` on that fit, and where the next page begins."""
    shown, cut = _fitting(items[start:], room)
    return shown, start + len(shown) if cut else None


def _fitting(items: Sequence[dict[str, Any]], room: int) -> tuple[list[dict[str, Any]], bool]:
    """As many as have `room` bytes as JSON, one at least; whether that left any out."""
    shown: list[dict[str, Any]] = []
    for item in items:
        room -= len(msgspec.json.encode(item))
        if room < 0 and shown:
            return shown, True
        shown.append(item)
    return shown, False
