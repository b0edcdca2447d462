"""The parts of the server around the core: its health, its schemas, its clients, its log and what they follow."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
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


class Listener(Protocol):
    """Who is told of changes: a client, or one stream to it."""

    def changed(self, uri: str) -> bool:
        """Say that the resource at `uri` has changed, unless the client does not read; whether it was said."""
        ...

    async def reads(self) -> None:
        """Wait while the client does not read."""
        ...


class ChangeStream(Listener, Protocol):
    """What a client listens to by one request."""

    async def serve(self, uris: Sequence[str]) -> None:
        """Say that these resources are listened to, then what `changed` is told, until client or server end it."""
        ...


class Client(Listener, Protocol):
    """The client at the other end of a connection, as handlers see it."""

    async def progress(
        self, token: str | int, progress: float, total: float | None = None, message: str | None = None
    ) -> None:
        """Send `notifications/progress`; waits while the client does not read."""
        ...

    def log(self, level: str, logger: str, data: Mapping[str, Any]) -> bool:
        """Send `notifications/message`, `data` in JSON types, unless the client does not read; whether it was sent."""
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


class Changes(Protocol):
    """Where whatever changes a resource says so."""

    def announce(self, uri: str, principal: str | None = None) -> None:
        """The resource at `uri` has changed, for everybody or for one `principal`.

        From any thread, after the change can be read. Costs next to nothing while nobody follows it, and never waits.
        """
        ...


class Subscriptions(Protocol):
    """Who follows which resources; clients that do not read are never waited for."""

    def subscribe(self, client: Client, uri: str, principal: str) -> None:
        """Tell `client` from now on when the resource changes.

        Raises:
            TooManySubscriptions: the client has no room for another one.
        """
        ...

    def unsubscribe(self, client: Client, uri: str) -> bool:
        """Tell `client` no more; whether it was told until now."""
        ...

    def listening(
        self, client: Client, listener: Listener, uris: Collection[str], principal: str
    ) -> AbstractContextManager[None]:
        """Tell `listener`, a stream to `client`, what changes inside.

        Raises:
            TooManySubscriptions: the client has no room for so many.
        """
        ...
