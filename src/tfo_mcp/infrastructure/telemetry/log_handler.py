"""From `logging` to the ring: what is logged also goes out over OTLP, as far as it may."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import cast

from tfo_mcp.application.attributes import EXCEPTION_TYPE, exception_type
from tfo_mcp.application.ports import AttributeValue, current_operation
from tfo_mcp.infrastructure.logs import UNFORESEEN
from tfo_mcp.infrastructure.telemetry.conventions import LOGGER
from tfo_mcp.infrastructure.telemetry.records import LogEntry

THREADS = "tfo-telemetry"
"""How the names of the pipeline's own threads begin."""

_KEPT_HERE = (
    "tfo_mcp.telemetry",  # what the pipeline says of the collector would lead to exports about exports
    "grpc",  # as above, from threads of its own
    UNFORESEEN,  # goes out as an error record, without the error's text
)
"""Loggers whose records, and those of the loggers below them, go to stderr only."""

_STANDARD = frozenset({*logging.makeLogRecord({}).__dict__, "message", "asctime", "taskName"})
_MAX_VALUES = 32
"""Named values of one record."""
_MAX_TEXT = 16_384
"""Characters of a text that waits; what is exported is cut further, after secrets have been taken out."""


class LogHandler(logging.Handler):
    """Records what is logged, with the ids of the operation in which it is.

    Of an error that is logged only the type goes on: its text may hold anything.

    Args:
        record: takes an entry, and neither blocks nor raises.
    """

    def __init__(self, record: Callable[[LogEntry], None]) -> None:
        super().__init__()
        self._record = record

    def emit(self, record: logging.LogRecord) -> None:
        if f"{record.name}.".startswith(_PREFIXES) or (record.threadName or "").startswith(THREADS):
            return
        self._record(
            LogEntry(
                time_ns=int(record.created * 1e9),
                observed_ns=time.time_ns(),
                level=(record.levelno, record.levelname),
                body=_body(record),
                context=current_operation.get(),
                attributes=dict(_attributes(record)),
            )
        )


_PREFIXES = tuple(f"{name}." for name in _KEPT_HERE)


def _body(record: logging.LogRecord) -> str:
    message, args = _shown(record.msg), record.args
    try:
        if isinstance(args, tuple) and args:
            message %= tuple(map(_textless, args))
        elif args:
            message %= {name: _textless(value) for name, value in cast("Mapping[str, object]", args).items()}
    except Exception:  # noqa: BLE001, S110  # a log call with the wrong arguments must not fail its caller
        pass
    if error := _error_of(record):
        # asyncio, for one, writes a failed task with its error below what it has to say of it.
        message = message.partition("\n")[0]
        if text := _str(error):
            message = message.replace(text, "…")
    return message[:_MAX_TEXT]


def _attributes(record: logging.LogRecord) -> Iterator[tuple[str, AttributeValue]]:
    yield LOGGER, record.name
    if error := _error_of(record):
        yield EXCEPTION_TYPE, exception_type(error)
    named = [(name, value) for name, value in record.__dict__.items() if name not in _STANDARD and value is not None]
    for name, value in named[:_MAX_VALUES]:
        yield name[:_MAX_TEXT], value if isinstance(value, bool | int | float) else _shown(value)


def _error_of(record: logging.LogRecord) -> BaseException | None:
    return record.exc_info[1] if isinstance(record.exc_info, tuple) else None


def _textless(value: object) -> object:
    return exception_type(value) if isinstance(value, BaseException) else value


def _shown(value: object) -> str:
    return _str(_textless(value))[:_MAX_TEXT]


def _str(value: object) -> str:
    try:
        return str(value)
    except Exception as error:  # noqa: BLE001  # whatever the `str` of a logged value raises
        return f"cannot be shown: {type(error).__name__}"
