"""The parts of the server around the core: its health, its schemas, its clients and its log."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from tfo_mcp.domain.health import ComponentHealth
from tfo_mcp.domain.log_level import LogLevel


class HealthSource(Protocol):
    """A part of the server that knows how it is."""

    async def health(self) -> ComponentHealth:
        """As it is now, within seconds whatever is wrong; does not raise."""
        ...


class SchemaCompiler(Protocol):
    """JSON Schema 2020-12. A schema is compiled once."""

    def compile(self, schema: Mapping[str, Any]) -> Callable[[object], Sequence[str]]:
        """A function from an instance to its violations, each one sentence that names the field.

        Raises:
            ValueError: `schema` is not a schema, or refers outside itself.
        """
        ...


class Client(Protocol):
    """The client at the other end of a connection, as handlers see it."""

    async def progress(
        self, token: str | int, progress: float, total: float | None = None, message: str | None = None
    ) -> None:
        """Send `notifications/progress`; waits while the client does not read."""
        ...

    def log(self, level: str, logger: str, data: Mapping[str, Any]) -> bool:
        """Send `notifications/message`, `data` in JSON types, unless the client does not read; whether it was sent."""
        ...

    async def reads(self) -> None:
        """Wait while the client does not read."""
        ...

    async def drain(self) -> None:
        """Let the other requests in flight end, for as long as the shutdown budget has; cut the rest."""
        ...


class ClientLog(Protocol):
    """The server's own log, as clients follow it. None of it ever waits for a client that does not read, but an end."""

    def follow(self, client: Client, level: LogLevel) -> None:
        """Send `client` every record of `level` and above from now on, and no other."""
        ...

    def following(self, client: Client, level: LogLevel) -> AbstractAsyncContextManager[None]:
        """Send `client` the records of `level` and above that what runs inside logs; all before this ends."""
        ...
