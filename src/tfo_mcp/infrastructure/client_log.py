"""The server's own log, as clients follow it: each record as one notification (the port `ClientLog`).

Only records of the project's own loggers, and of those the message and the named values, redacted as on stderr:
what libraries log may hold contents, and so may an exception's text. Records come from any thread and wait in a
bounded queue, so that no client that does not read holds up whoever logs. Nothing here logs.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, cast
from weakref import WeakKeyDictionary, ref

from tfo_mcp.application.ports import Client
from tfo_mcp.domain.log_level import LogLevel
from tfo_mcp.infrastructure.config import Settings
from tfo_mcp.infrastructure.redaction import CONTROLS_WITHIN_LINES, Redaction

_BACKLOG = 1000
"""Records that may wait for one client; what comes on top is dropped, and counted in the next one."""

_LEAST: Mapping[LogLevel, int] = {
    LogLevel.DEBUG: logging.DEBUG,
    LogLevel.INFO: logging.INFO,
    LogLevel.NOTICE: logging.WARNING,  # between the two, and nothing is logged there
    LogLevel.WARNING: logging.WARNING,
    LogLevel.ERROR: logging.ERROR,
    LogLevel.CRITICAL: logging.CRITICAL,
    LogLevel.ALERT: logging.CRITICAL + 1,
    LogLevel.EMERGENCY: logging.CRITICAL + 1,
}
"""What a client follows to the least level of Python's that it then gets."""

_LABELS = (
    (logging.CRITICAL, LogLevel.CRITICAL.label),
    (logging.ERROR, LogLevel.ERROR.label),
    (logging.WARNING, LogLevel.WARNING.label),
    (logging.INFO, LogLevel.INFO.label),
)
"""Python's levels from the top, to their names; below the last it is debug."""

_NOT_NAMED_VALUES = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime"}

_log = logging.getLogger("tfo_mcp")


@dataclass(frozen=True, slots=True)
class _Entry:
    level: str
    logger: str
    data: dict[str, Any]


class FollowedLog(logging.Handler):
    """Hands records to those who follow: clients until they say otherwise, or for the time of one request."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._redact = Redaction(settings)
        self._ordinary = logging.getLevelNamesMapping()[settings.logging.level.upper()]
        self._feeds: WeakKeyDictionary[Client, _Feed] = WeakKeyDictionary()
        self._of_requests: set[_Feed] = set()
        self._of_this_request: ContextVar[_Feed | None] = ContextVar("log of this request", default=None)

    def follow(self, client: Client, level: LogLevel) -> None:
        """Send `client` every record of `level` and above from now on, and no other."""
        with self._locked():
            if feed := self._feeds.get(client):
                feed.least = _LEAST[level]
            else:
                self._feeds[client] = _Feed(client, _LEAST[level])
        self._listen()

    @asynccontextmanager
    async def following(self, client: Client, level: LogLevel) -> AsyncGenerator[None]:
        """Send `client` the records of `level` and above that what runs inside logs; all before this ends."""
        feed = _Feed(client, _LEAST[level])
        self._of_requests.add(feed)
        self._listen()
        token = self._of_this_request.set(feed)
        try:
            try:
                yield
            finally:
                self._of_this_request.reset(token)
                self._of_requests.discard(feed)
                self._listen()
        except Exception:
            await feed.end()
            raise
        await feed.end()

    @contextmanager
    def _locked(self) -> Generator[None]:
        """Alone with the feeds: `emit` is called under the same lock."""
        self.acquire()
        try:
            yield
        finally:
            self.release()

    def _listen(self) -> None:
        """Have logged what anybody follows, also where that is less grave than what stderr gets."""
        feeds = [*self._feeds.values(), *self._of_requests]
        level = min([self._ordinary, *(feed.least for feed in feeds)])
        if level != _log.level:
            _log.setLevel(level)
        if feeds and self not in _log.handlers:
            _log.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        of_this_request = self._of_this_request.get()
        feeds = list(self._feeds.values()) + ([of_this_request] if of_this_request else [])
        for feed in feeds:
            if record.levelno >= feed.least:
                feed.offer(lambda: self._entry(record))

    def _entry(self, record: logging.LogRecord) -> _Entry:
        level = next((label for least, label in _LABELS if record.levelno >= least), LogLevel.DEBUG.label)
        try:
            named = {key: value for key, value in record.__dict__.items() if key not in _NOT_NAMED_VALUES}
            data = {"message": _plain(record.getMessage(), self._redact), **_mapping(named, self._redact)}
        except Exception as error:  # noqa: BLE001  # whatever the `repr` of a logged value raises
            data = {"message": f"a record cannot be shown: {type(error).__name__}"}
        return _Entry(level, record.name, data)


class _Feed:
    """Records on their way to one client, in order. Made in the loop's thread.

    Attributes:
        least: Python's level from which it takes them.
    """

    def __init__(self, client: Client, least: int) -> None:
        self.least = least
        self._client = ref(client)  # not kept: the feeds of clients that have gone go with them
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._waiting: deque[_Entry] = deque()
        self._dropped = 0
        self._later: asyncio.Task[None] | None = None
        self._ended = False

    def offer(self, entry: Callable[[], _Entry]) -> None:
        """Take a record, in whichever thread, unless too many wait."""
        if self._ended:
            return
        if len(self._waiting) >= _BACKLOG:
            self._dropped += 1
            return
        made = entry()
        if self._dropped:
            made.data["dropped"], self._dropped = self._dropped, 0
        self._waiting.append(made)
        if threading.get_ident() == self._thread:
            self._send()
        else:
            with suppress(RuntimeError):  # the loop is closed: there is no client any more
                self._loop.call_soon_threadsafe(self._send)

    async def end(self) -> None:
        """Take no more, and send what waits."""
        self._ended = True
        self._send()
        if self._later is not None:
            await self._later

    def _send(self) -> None:
        """At once, so that a record comes before the answer of the request that logged it; if not, in order later."""
        if self._later is None and not self._send_what_is_read():
            self._later = self._loop.create_task(self._send_later())

    def _send_what_is_read(self) -> bool:
        """Whether that was all."""
        client = self._client()
        while client and self._waiting:
            entry = self._waiting.popleft()
            if not client.log(entry.level, entry.logger, entry.data):
                self._waiting.appendleft(entry)
                return False
        return True

    async def _send_later(self) -> None:
        while not self._send_what_is_read():
            if client := self._client():
                await client.reads()
        self._later = None


def _plain(value: object, redact: Callable[[str], str]) -> Any:  # noqa: ANN401  # whatever JSON has
    """`value` in JSON's types, without secrets."""
    match value:
        case None | bool():
            return value
        case str():
            return redact(value).translate(CONTROLS_WITHIN_LINES).encode("utf-8", "backslashreplace").decode()
        case int() | float():
            text = str(value)
            return value if redact(text) == text else redact(text)
        case dict():
            return _mapping(cast("dict[object, object]", value), redact)
        case list() | tuple() | set() | frozenset():
            return [_plain(item, redact) for item in cast("Iterable[object]", value)]
        case _:
            return _plain(repr(value), redact)


def _mapping(values: Mapping[Any, object], redact: Callable[[str], str]) -> dict[str, Any]:
    return {_plain(str(key), redact): _plain(value, redact) for key, value in values.items()}
