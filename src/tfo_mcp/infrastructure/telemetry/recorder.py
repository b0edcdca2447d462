"""What this machine keeps of what was recorded, for people and models to ask about: no collector is needed for it."""

from __future__ import annotations

import logging
import os
import platform
import sqlite3
import time
from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final, cast

import msgspec

from tfo_mcp.application import attributes as core
from tfo_mcp.application.ports import TraceContext
from tfo_mcp.infrastructure.persistence.database_file import kind_of
from tfo_mcp.infrastructure.telemetry import conventions as names
from tfo_mcp.infrastructure.telemetry.aggregate import Aggregate
from tfo_mcp.infrastructure.telemetry.disposable import is_damaged
from tfo_mcp.infrastructure.telemetry.minutes import Count, Key, Minutes
from tfo_mcp.infrastructure.telemetry.options import RecorderOptions
from tfo_mcp.infrastructure.telemetry.recorder_file import ProcessRow, RecorderFile, SessionRow, SpanRow
from tfo_mcp.infrastructure.telemetry.records import Item, LibrarySpan, Record
from tfo_mcp.infrastructure.telemetry.table import TABLE

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext

_log = logging.getLogger("tfo_mcp.telemetry")

_LOOK_FOR_OLD: Final = 60.0
"""Seconds from one look to the next at what is too old or too much."""
_OLD_SHARE: Final = 0.02
"""Seconds that one cycle of the pipeline may give to removing it."""

_MOST_UNWRITTEN: Final = 50_000
"""Rows that wait while the disk does not take them."""

_DAY: Final = 86_400.0
_SECOND: Final = 1e9

_MAX_VALUE: Final = 1024
"""Characters of what a library says in one attribute."""

_MAX_INTEGER: Final = 2**63 - 1
"""What SQLite can hold; a larger number, which a library may have taken from an answer as it came, is kept as text."""

_ENDS: Final = frozenset({"completed", "cancelled", "error"})
"""Events that say no more than the outcome does."""


class Recorder:
    """Writes what has ended, behind. To be used from the pipeline's thread; the file is opened when it is needed.

    Args:
        minutes: what is counted, also of operations that the ring could not take.
        instance: of this process, as the resource says it.
        version: of this package.

    Attributes:
        problem: why what was recorded last is in memory only, None where it is not.
    """

    def __init__(
        self, options: RecorderOptions, minutes: Minutes, aggregate: Aggregate, *, instance: str, version: str
    ) -> None:
        self._options = options
        self._minutes = minutes
        self._aggregate = aggregate
        shown = _json(dict(options.settings))
        self._self = ProcessRow(instance, os.getpid(), version, platform.python_version(), time.time(), shown)
        self._file: RecorderFile | None = None
        self._spans: list[SpanRow] = []
        self._sessions: list[SessionRow] = []
        self._look_at = 0.0
        self._told: str | None = None
        self._is_locked = False
        self.problem: str | None = None

    def add(self, items: Sequence[Item]) -> None:
        """Keep the operations and sessions among `items` for the next commit."""
        runs: dict[int, Record] = {}
        """Of tools, by the request that they may share a row with: it ends right after them."""
        for item in items:
            if isinstance(item, Record):
                becomes = TABLE[item.kind]
                if item.parent_id not in runs and _may_share(item):
                    runs[item.parent_id] = item
                elif becomes.span is not None:
                    self._spans.append(_span_row(item, runs))
                elif becomes.is_session:
                    self._sessions.append(_session_row(item))
            elif isinstance(item, LibrarySpan):
                with suppress(Exception):  # a library's span may hold anything; that costs no other its row
                    self._spans.append(_library_row(item))
        self._spans += [_span_row(run, {}) for run in runs.values()]

    def commit(self) -> None:
        """Write what was added and counted. What cannot be written is, with what comes next."""
        counts = self._minutes.take()
        if counts or self._spans or self._sessions:
            try:
                self._write(counts)
            except (sqlite3.Error, OSError) as error:
                self._minutes.put_back(counts)
                self._troubled(error)
            else:
                self._spans, self._sessions, self.problem, self._is_locked = [], [], None, False
        else:
            self.problem, self._is_locked = None, False
        if self.problem not in {None, self._told}:
            _log.warning("%s; what is recorded waits in memory", self.problem)
        self._told = self.problem
        if self._file is not None and time.monotonic() >= self._look_at:
            self._remove_old(self._file)

    def close(self, deadline: float) -> None:
        """Close the file; while another process has it locked, try to write what waits until `deadline` (monotonic)."""
        while self._is_locked and time.monotonic() < deadline:
            self.commit()
        if self._spans or self._sessions:
            _log.warning("shut down before the recorder took %d operations", len(self._spans))
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, counts: Mapping[Key, Count]) -> None:
        if self._file is None:
            self._file = RecorderFile(self._options.path)
        elif self._file.is_gone:
            self._file.begin_anew()
        try:
            self._file.append(self._self, self._spans, self._sessions, counts)
        except UnicodeError:  # half of a surrogate pair, which no text of SQLite's can hold
            self._spans = [tuple(map(_writable, row)) for row in self._spans]
            self._sessions = [SessionRow._make(map(_writable, row)) for row in self._sessions]
            writable = {Key._make(map(_writable, key)): count for key, count in counts.items()}
            self._file.append(self._self, self._spans, self._sessions, writable)

    def _remove_old(self, file: RecorderFile) -> None:
        """In small steps, so that neither this thread nor another process waits for long."""
        now, until = time.time(), time.monotonic() + _OLD_SHARE
        options = self._options
        try:
            while file.remove_old(now - options.days * _DAY, now - options.summary_days * _DAY, options.max_bytes):
                if time.monotonic() >= until:
                    return  # the next cycle goes on
        except sqlite3.Error as error:
            self._troubled(error)
        self._look_at = time.monotonic() + _LOOK_FOR_OLD

    def _troubled(self, error: Exception) -> None:
        self.problem = f"the recorder {str(self._options.path)!r} cannot be used: {error}"
        self._is_locked = kind_of(error) == sqlite3.SQLITE_BUSY
        if self._file is not None and isinstance(error, sqlite3.Error) and is_damaged(error):
            with suppress(sqlite3.Error, OSError):
                self._file.begin_anew(damaged=True)
        if (lost := len(self._spans) - _MOST_UNWRITTEN) > 0:
            del self._spans[:lost]
            self._aggregate.count(names.ROWS_DROPPED, lost, {names.REASON: names.DROPPED_UNWRITTEN})
        del self._sessions[:-_MOST_UNWRITTEN]


_MORE: Final = (
    core.CONVERSATION,
    core.REQUEST_MODEL,
    core.RESPONSE_MODEL,
    core.INPUT_TOKENS,
    core.OUTPUT_TOKENS,
    core.CACHE_READ_TOKENS,
    core.CACHE_WRITE_TOKENS,
)
"""Attributes that have a column of their own, in the order of `MORE_COLUMNS`."""

_NOT_AGAIN: Final = frozenset(
    {
        *_MORE,
        core.ERROR_TYPE,
        core.METHOD,
        core.TOOL,
        core.SESSION,
        core.READS_TELEMETRY,
        core.GEN_AI_OPERATION,  # as the kind says
        names.OUTCOME,
    }
)


def _span_row(record: Record, runs: MutableMapping[int, Record]) -> SpanRow:
    """Its row; with the run of a tool that is all that it did, taken from `runs`."""
    context, attributes = cast("TraceContext", record.context), record.attributes
    rest = {name: value for name, value in attributes.items() if name not in _NOT_AGAIN}
    if record.contents is not None:
        rest |= record.contents
    row = (
        record.principal,
        f"{context.trace_id:032x}",
        f"{context.span_id:016x}",
        f"{record.parent_id:016x}" if record.parent_id else None,
        record.kind,
        record.name,
        (record.start_ns + record.duration_ns) / _SECOND,
        record.duration_ns / _SECOND,
        record.outcome,
        attributes.get(core.ERROR_TYPE),
        attributes.get(core.METHOD),
        attributes.get(core.TOOL),
        attributes.get(core.SESSION),
        core.READS_TELEMETRY in attributes,
        _json(rest) if rest else None,
    )
    if record.kind == "request":
        run = runs.get(context.span_id)
        return row if run is None or not _is_all_of(record, run) else (*row, *_run(runs.pop(context.span_id)))
    if record.kind == "tool":
        return row
    events = [_event(*event) for event in record.events if event[1] not in _ENDS]
    return (*row, *[attributes.get(name) for name in _MORE], _json(events) if events else None)


def _may_share(run: Record) -> bool:
    """Whether it is the run of a tool for a client, of which nothing is known that has no place in a shared row."""
    is_run = run.name == "tools.execute" and run.parent_id != 0
    return is_run and run.contents is None and run.attributes.keys() <= _NOT_AGAIN


def _is_all_of(request: Record, run: Record) -> bool:
    same_trace = cast("TraceContext", request.context).trace_id == cast("TraceContext", run.context).trace_id
    return same_trace and request.attributes.get(core.TOOL) == run.attributes.get(core.TOOL)


def _run(record: Record) -> SpanRow:
    return (
        f"{cast('TraceContext', record.context).span_id:016x}",
        (record.start_ns + record.duration_ns) / _SECOND,
        record.duration_ns / _SECOND,
        record.outcome,
        record.attributes.get(core.ERROR_TYPE),
    )


def _library_row(item: LibrarySpan) -> SpanRow:
    span = item.span
    context, start = cast("SpanContext", span.get_span_context()), span.start_time or 0
    end = max(span.end_time or start, start)
    attributes = _cut_all(span.attributes or {})
    rest = {name: value for name, value in attributes.items() if name not in _NOT_AGAIN}
    events = [_event(event.timestamp, event.name, _cut_all(event.attributes or {})) for event in span.events]
    return (
        item.principal,
        f"{context.trace_id:032x}",
        f"{context.span_id:016x}",
        None if span.parent is None else f"{span.parent.span_id:016x}",
        "library",
        span.name[:_MAX_VALUE],
        end / _SECOND,
        (end - start) / _SECOND,
        "failed" if span.status.status_code.name == "ERROR" else "completed",
        attributes.get(core.ERROR_TYPE),
        attributes.get(core.METHOD),
        attributes.get(core.TOOL),
        attributes.get(core.SESSION),
        False,
        _json(rest) if rest else None,
        *[attributes.get(name) for name in _MORE],
        _json(events) if events else None,
    )


def _session_row(record: Record) -> SessionRow:
    attributes, now = record.attributes, record.start_ns / _SECOND
    return SessionRow(
        str(attributes[core.SESSION]),
        record.principal,
        _cut(attributes.get(names.CLIENT_NAME)),
        _cut(attributes.get(names.CLIENT_VERSION)),
        attributes.get(core.PROTOCOL_VERSION),
        now - record.duration_ns / _SECOND,
        now if record.name == "closed" else None,
    )


def _event(at: int, name: str, attributes: Mapping[str, object]) -> dict[str, object]:
    return {"at": at / _SECOND, "name": name, "attributes": attributes}


def _cut_all(attributes: Mapping[str, object]) -> dict[str, object]:
    return {name: _cut(value) for name, value in attributes.items()}


def _cut(value: object) -> object:
    if value is None or isinstance(value, float) or (isinstance(value, int) and abs(value) <= _MAX_INTEGER):
        return value
    return str(value)[:_MAX_VALUE]


def _json(value: object) -> str:
    try:
        return msgspec.json.encode(value).decode()
    except UnicodeError:
        return msgspec.json.encode(_writable(value)).decode()


def _writable(value: object) -> object:
    """Without halves of surrogate pairs, in a text or anywhere below."""
    match value:
        case str():
            return value.encode("utf-8", "replace").decode()
        case dict():
            return {_writable(key): _writable(inner) for key, inner in cast("dict[object, object]", value).items()}
        case list():
            return [_writable(inner) for inner in cast("list[object]", value)]
        case _:
            return value
