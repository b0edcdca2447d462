"""The commands on subscriptions: which resources a client follows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

from tfo_mcp.application.bus import RequestInfo
from tfo_mcp.application.commands import Listen, Subscribe, Unsubscribe
from tfo_mcp.application.ports import Subscriptions
from tfo_mcp.application.queries import ReadContent, ReadResource
from tfo_mcp.domain.errors import NotSubscribable, UnknownResource
from tfo_mcp.domain.resource import ResourceRegistry


class SubscriptionHandler:
    """Lets clients follow resources that are there, are theirs, and do not change unsaid.

    Args:
        read: reads a resource: what cannot be read cannot be followed.
    """

    def __init__(
        self,
        resources: ResourceRegistry,
        read: Callable[[ReadResource, RequestInfo], Awaitable[ReadContent]],
        subscriptions: Subscriptions,
    ) -> None:
        self._resources = resources
        self._read = read
        self._subscriptions = subscriptions

    async def subscribe(self, command: Subscribe, info: RequestInfo) -> None:
        """From now on the client is told when the resource changes; a second time is as once.

        Raises:
            UnknownResource: nothing is there.
            NotSubscribable: it changes without anybody knowing.
            TooManySubscriptions: the client has as many as it may.
            ResourceUnavailable: whether it is there cannot be told now.
        """
        await self._check(command.uri, info)
        self._subscriptions.subscribe(info.client, command.uri, info.principal)

    async def unsubscribe(self, command: Unsubscribe, info: RequestInfo) -> None:
        """The client is told no more, also of what has been deleted meanwhile.

        Raises:
            UnknownResource: it was not subscribed to, and could not be.
        """
        if not self._subscriptions.unsubscribe(info.client, command.uri):
            self._resources.find(command.uri)

    async def listen(self, command: Listen, info: RequestInfo) -> None:
        """Tell the request's stream what changes, of those of its resources that can be followed, until it ends.

        Raises:
            TooManySubscriptions: the client has no room for so many.
            ResourceUnavailable: whether one is there cannot be told now.
        """
        assert info.stream is not None  # noqa: S101  # its door gives each such request one
        uris = tuple(dict.fromkeys(command.uris))
        with self._subscriptions.listening(info.client, info.stream, uris, info.principal):
            unnamed = replace(info, span=None)  # which is about no single one of them
            followed: list[str] = []
            for uri in uris:
                with suppress(UnknownResource, NotSubscribable):
                    await self._check(uri, unnamed)
                    followed.append(uri)
            await info.stream.serve(followed)

    async def _check(self, uri: str, info: RequestInfo) -> None:
        if not self._resources.find(uri).subscribable:
            raise NotSubscribable(uri)
        await self._read(ReadResource(uri), info)
