"""The server's own log, on stderr or in a file: never on stdout, which is the protocol's.

Code logs with the standard library's `logging`; named values go in `extra`. Records are rendered (by
structlog, imported with the first) and written by a thread, so that neither the import nor a client that does
not read stderr ever holds up an answer. `logging.shutdown()`, which Python calls at a normal exit, gives the
thread a moment to finish; who calls `os._exit` calls `flush_logs` before.
"""

from __future__ import annotations

import copy
import io
import logging
import os
import select
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

from tfo_mcp.application.ports import current_operation
from tfo_mcp.infrastructure.config import ConfigurationError, LoggingSettings, Settings
from tfo_mcp.infrastructure.redaction import CONTROLS, CONTROLS_WITHIN_LINES, Redaction

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor

UNFORESEEN = "tfo_mcp.unforeseen"
"""The logger whose records show an error's text and traceback: they stay on this machine."""

_STDOUT, _STDERR = 1, 2
_BACKLOG = 10_000
"""Records that may wait to be written; what comes on top is dropped, and counted in the next one."""
_PATIENCE = 0.5
"""Seconds that a flush waits: a client that does not read stderr must not keep the process."""

_CAN_WAIT = frozenset({"DEBUG", "INFO"})
"""Levels that are not written before the first answer."""

_log = logging.getLogger("tfo_mcp")
_unforeseen = logging.getLogger(UNFORESEEN)


def configure_logging(settings: Settings, *, held: bool = False) -> None:
    """Send the project's log, and the warnings of libraries, where `settings.logging` says.

    `held` keeps it back until `release_logs`, or a warning, or the end.

    Raises:
        ConfigurationError: the log file cannot be opened.
    """
    stream = _open(settings.logging)
    for handler in list(logging.root.handlers):
        if isinstance(handler, _BackgroundHandler):
            logging.root.removeHandler(handler)
            handler.close()
    level = logging.getLevelNamesMapping()[settings.logging.level.upper()]
    handler = _BackgroundHandler(stream, settings.logging.format, Redaction(settings), held=held)
    handler.setLevel(level)  # of its own, for a client may follow more
    logging.root.addHandler(handler)
    _log.setLevel(level)
    # Below a warning, libraries tell what stands in requests.
    logging.root.setLevel(max(level, logging.WARNING))


def check_logging(settings: Settings) -> None:
    """Refuse what `configure_logging` would, and leave things as they are.

    Raises:
        ConfigurationError: the log file cannot be opened.
    """
    file = settings.logging.file
    if file is not None:
        is_new = not os.path.lexists(file)
        _open(settings.logging).close()
        if is_new:
            file.unlink()


def report_unforeseen(error_id: str, error: BaseException) -> None:
    """Log an error of which its caller is told no more than `error_id`."""
    _unforeseen.error("unforeseen error %s", error_id, exc_info=error, extra={"error_id": error_id})


def release_logs() -> None:
    """Write what was held back, and from now on at once."""
    for handler in logging.root.handlers:
        if isinstance(handler, _BackgroundHandler):
            handler.write_now()


def flush_logs(seconds: float) -> None:
    """Write what is queued, for at most `seconds`: for who leaves by `os._exit`."""
    for handler in logging.root.handlers:
        if isinstance(handler, _BackgroundHandler):
            handler.flush_within(seconds)


def _open(settings: LoggingSettings) -> io.RawIOBase:
    # Unbuffered: a thread that hangs in a write would hold the lock of a buffer, which the exit needs.
    try:
        if settings.file is None:
            return io.FileIO(_STDERR, "wb", closefd=False)
        file = io.FileIO(settings.file, "ab", opener=lambda path, flags: os.open(path, flags, 0o600))
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigurationError(f"logging.output: cannot open {settings.output!r}: {why}") from None
    if _is_stdout(file):
        file.close()
        raise ConfigurationError(f"logging.output: {settings.output!r} is stdout, which is the protocol's")
    return file


def _is_stdout(file: io.FileIO) -> bool:
    """Whether both are one file, whatever name it was opened by; what goes nowhere is harmless."""
    try:
        stdout = os.fstat(_STDOUT)
        nowhere = Path(os.devnull).stat()
        return os.path.samestat(os.fstat(file.fileno()), stdout) and not os.path.samestat(stdout, nowhere)
    except OSError:  # there is no stdout
        return False


class _BackgroundHandler(logging.Handler):
    """Queues records; a daemon thread of its own renders and writes them."""

    def __init__(self, stream: io.RawIOBase, style: str, redaction: Redaction, *, held: bool) -> None:
        super().__init__()
        self._stream = stream
        self._style = style
        self._redaction = redaction
        self._queue: SimpleQueue[logging.LogRecord | threading.Event | None] = SimpleQueue()
        self._dropped = 0
        self._released = threading.Event()
        if not held:
            self._released.set()
        self._thread = threading.Thread(target=self._write_all, name="tfo-mcp-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        if self._queue.qsize() >= _BACKLOG:
            self._dropped += 1
            return
        record = copy.copy(record)
        record.__dict__.pop("message", None)  # the formatter of another handler leaves it
        try:
            # Now, because what the arguments refer to may change before the thread comes to it.
            record.msg, record.args = record.getMessage(), None
        except Exception:  # noqa: BLE001  # a log call with the wrong arguments must not fail its caller
            record.msg, record.args = str(record.msg), None
        if operation := current_operation.get():  # of the thread and task that logs, not of the one that writes
            record.__dict__["trace_id"] = f"{operation.trace_id:032x}"
            record.__dict__["span_id"] = f"{operation.span_id:016x}"
        if self._dropped:
            record.__dict__["dropped"], self._dropped = self._dropped, 0
        self._queue.put(record)
        if record.levelname not in _CAN_WAIT:
            self.write_now()

    def write_now(self) -> None:
        """Begin to write, where that was held back."""
        self._released.set()

    def flush(self) -> None:
        self.flush_within(_PATIENCE)

    def flush_within(self, seconds: float) -> None:
        self.write_now()
        written = threading.Event()
        self._queue.put(written)
        written.wait(seconds)

    def close(self) -> None:
        self.write_now()
        self._queue.put(None)
        self._thread.join(_PATIENCE / 10)  # `logging.shutdown` has flushed; whoever closes otherwise is in no hurry
        super().close()

    def _write_all(self) -> None:
        render: Callable[[logging.LogRecord], str] | None = None
        self._released.wait()
        with self._stream:
            while (item := self._queue.get()) is not None:
                if isinstance(item, threading.Event):
                    item.set()
                    continue
                render = render or _renderer(self._style, self._redaction)
                try:
                    line = render(item)
                except Exception as error:  # noqa: BLE001  # whatever the `repr` of a logged value raises
                    line = f"a record of {item.name} cannot be rendered: {type(error).__name__}"
                _write(self._stream, line)


def _write(stream: io.RawIOBase, line: str) -> None:
    rest = memoryview(line.encode("utf-8", "backslashreplace") + b"\n")
    try:
        while rest:
            written = stream.write(rest)
            if written is None:  # somebody who shares stderr has made it non-blocking
                select.select((), (stream,), ())
            else:
                rest = rest[written:]
    except OSError:
        pass  # nobody reads any more, or the disk is full: there is nowhere left to say so


def _renderer(style: str, redaction: Redaction) -> Callable[[logging.LogRecord], str]:
    from structlog import dev, processors, stdlib

    def redact(_logger: object, _method: str, rendered: EventDict) -> str:
        return redaction(str(rendered)).translate(CONTROLS_WITHIN_LINES)

    as_json: tuple[Processor, ...] = (processors.format_exc_info, processors.JSONRenderer(ensure_ascii=False))
    as_text: tuple[Processor, ...] = (
        _in_one_line,
        dev.ConsoleRenderer(colors=False, exception_formatter=dev.plain_traceback),
    )
    return stdlib.ProcessorFormatter(
        foreign_pre_chain=(_add_origin, stdlib.ExtraAdder()),
        processors=(
            stdlib.ProcessorFormatter.remove_processors_meta,
            *(as_json if style == "json" else as_text),
            redact,
        ),
    ).format


def _add_origin(_logger: object, level: str, event: EventDict) -> EventDict:
    record: logging.LogRecord = event["_record"]
    moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    return {"timestamp": moment, "level": level, "logger": record.name, **event}


def _in_one_line(_logger: object, _level: str, event: EventDict) -> EventDict:
    # Otherwise whoever chooses a name that is logged could write lines of his own.
    return {key: value.translate(CONTROLS) if isinstance(value, str) else value for key, value in event.items()}
