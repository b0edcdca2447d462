"""Who follows which resource, and is told that it has changed (the ports `Changes` and `Subscriptions`).

A change is a level, not an event: whoever is told of it reads again. So of many changes of one resource the first is
told at once and the last a second later, and none in between; and while a client does not read, all are one.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection, Generator
from contextlib import contextmanager, suppress
from weakref import WeakKeyDictionary, finalize, ref

from tfo_mcp.application.ports import Client, Listener
from tfo_mcp.domain.errors import TooManySubscriptions

_PAUSE = 1.0
"""Seconds between two notifications of one resource to one listener, at least."""


class FollowedResources:
    """Hands changes to those who follow: clients until they say otherwise, or streams for the time of one request.

    Args:
        most: resources that one client follows at once; a stream counts as its resources, and at least as one.
    """

    def __init__(self, *, most: int) -> None:
        self._most = most
        self._feeds: dict[str, set[_Feed]] = {}
        """By URI, and only what somebody follows."""
        self._of_clients: WeakKeyDictionary[Client, _Feed] = WeakKeyDictionary()
        self._taken: WeakKeyDictionary[Client, int] = WeakKeyDictionary()
        """Of `most`."""
        self._arriving: set[tuple[str, str | None]] = set()
        """Announced by other threads, and on their way to the loop's."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: int | None = None
        """Those in which clients are told; known once somebody follows something."""

    # --- the port `Changes` ---

    @property
    def are_followed(self) -> bool:
        """Whether anybody follows anything."""
        return bool(self._feeds)

    def announce(self, uri: str, principal: str | None = None) -> None:
        """The resource at `uri` has changed, for everybody or for one `principal`."""
        if uri not in self._feeds or self._loop is None:
            return
        if threading.get_ident() == self._thread:
            self._tell(uri, principal)
        elif (change := (uri, principal)) not in self._arriving:
            self._arriving.add(change)
            with suppress(RuntimeError):  # the loop is closed: there is no client any more
                self._loop.call_soon_threadsafe(self._arrived, change)

    def _arrived(self, change: tuple[str, str | None]) -> None:
        self._arriving.discard(change)  # first: what changes from now on comes again
        self._tell(*change)

    def _tell(self, uri: str, principal: str | None) -> None:
        for feed in tuple(self._feeds.get(uri, ())):
            if principal is None or feed.principal == principal:
                feed.offer(uri)

    # --- the port `Subscriptions` ---

    def subscribe(self, client: Client, uri: str, principal: str) -> None:
        """Tell `client` from now on when the resource changes; twice is once."""
        feed = self._of_clients.get(client)
        if feed is None:
            feed = self._of_clients[client] = _Feed(client, principal)
            finalize(client, self._end, feed).atexit = False
        if uri not in feed.uris:
            self._take(client, 1)
            self._follow(feed, uri)

    def unsubscribe(self, client: Client, uri: str) -> bool:
        """Tell `client` no more; whether it was told until now."""
        feed = self._of_clients.get(client)
        if feed is None or uri not in feed.uris:
            return False
        self._leave(feed, uri)
        self._take(client, -1)
        return True

    @contextmanager
    def listening(self, client: Client, listener: Listener, uris: Collection[str], principal: str) -> Generator[None]:
        """Tell `listener`, a stream to `client`, what changes inside."""
        room = max(1, len(uris))
        self._take(client, room)
        feed = _Feed(listener, principal)
        for uri in uris:
            self._follow(feed, uri)
        try:
            yield
        finally:
            self._end(feed)
            self._take(client, -room)

    def _take(self, client: Client, room: int) -> None:
        taken = self._taken.get(client, 0) + room
        if taken > self._most:
            raise TooManySubscriptions(self._most)
        self._taken[client] = taken

    def _follow(self, feed: _Feed, uri: str) -> None:
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        feed.uris.add(uri)
        self._feeds.setdefault(uri, set()).add(feed)

    def _leave(self, feed: _Feed, uri: str) -> None:
        feed.forget(uri)
        feeds = self._feeds[uri]
        feeds.discard(feed)
        if not feeds:
            del self._feeds[uri]

    def _end(self, feed: _Feed) -> None:
        for uri in tuple(feed.uris):
            self._leave(feed, uri)
        feed.end()


class _Feed:
    """Changes on their way to one listener. Made in the loop's thread, and only used there.

    Attributes:
        principal: on whose behalf it listens.
        uris: what it follows.
    """

    def __init__(self, listener: Listener, principal: str) -> None:
        self.principal = principal
        self.uris: set[str] = set()
        self._listener = ref(listener)  # not kept: the feeds of clients that have gone go with them
        self._loop = asyncio.get_running_loop()
        self._told_at: dict[str, float] = {}
        self._paused: dict[str, asyncio.TimerHandle] = {}
        """Changed again, and told too lately to be told now."""
        self._waiting: dict[str, None] = {}
        """To be told as soon as the client reads, in order."""
        self._later: asyncio.Task[None] | None = None

    def offer(self, uri: str) -> None:
        """Tell of a change: now, or when the pause is over, or when the client reads."""
        if uri in self._paused or uri in self._waiting:
            return
        told_at = self._told_at.get(uri)
        if told_at is None or (again_at := told_at + _PAUSE) <= self._loop.time():
            self._tell(uri)
        else:
            self._paused[uri] = self._loop.call_at(again_at, self._tell, uri)

    def forget(self, uri: str) -> None:
        """Follow it no more."""
        self.uris.discard(uri)
        self._told_at.pop(uri, None)
        self._waiting.pop(uri, None)
        if timer := self._paused.pop(uri, None):
            timer.cancel()

    def end(self) -> None:
        """Wait for the client no more."""
        if self._later is not None:
            self._later.cancel()

    def _tell(self, uri: str) -> None:
        self._paused.pop(uri, None)
        self._waiting[uri] = None
        if self._later is None and not self._tell_what_is_read():
            self._later = self._loop.create_task(self._tell_later())

    def _tell_what_is_read(self) -> bool:
        """Whether that was all."""
        listener = self._listener()
        while listener and self._waiting:
            uri = next(iter(self._waiting))
            if not listener.changed(uri):
                return False
            del self._waiting[uri]
            self._told_at[uri] = self._loop.time()
        return True

    async def _tell_later(self) -> None:
        while not self._tell_what_is_read():
            if listener := self._listener():
                await listener.reads()
        self._later = None
