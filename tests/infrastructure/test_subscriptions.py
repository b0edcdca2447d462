from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Awaitable, Callable

import pytest

from support.tool_calls import FakeClient
from support.world import pass_time, runner
from tfo_mcp.domain.errors import TooManySubscriptions
from tfo_mcp.infrastructure.subscriptions import FollowedResources

A, B = "conversation://a", "conversation://b"


class Reader(FakeClient):
    """A client that reads or does not."""

    def __init__(self) -> None:
        super().__init__()
        self.reading = asyncio.Event()
        self.reading.set()

    def changed(self, uri: str) -> bool:
        return self.reading.is_set() and super().changed(uri)

    async def reads(self) -> None:
        await self.reading.wait()


def run(test: Callable[[FollowedResources], Awaitable[None]], *, most: int = 10) -> None:
    async def within() -> None:
        await test(FollowedResources(most=most))

    with runner() as running:
        running.run(within())


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def passes(seconds: float) -> None:
    pass_time(seconds)
    await turns()


def test_a_change_is_told_before_the_announcement_returns_and_to_followers_only() -> None:
    async def test(resources: FollowedResources) -> None:
        one, other = Reader(), Reader()
        resources.announce(A)
        resources.subscribe(one, A, "local")
        resources.subscribe(other, B, "local")
        resources.announce(A)
        assert (one.updated, other.updated) == ([A], [])

    run(test)


@pytest.mark.behaviour("resources.subscribe.bounded")
def test_many_changes_are_told_once_a_second_and_the_last_is_never_lost() -> None:
    async def test(resources: FollowedResources) -> None:
        client = Reader()
        resources.subscribe(client, A, "local")
        resources.subscribe(client, B, "local")
        for _ in range(1000):
            resources.announce(A)
        resources.announce(B)
        await passes(0.9)
        assert client.updated == [A, B]
        resources.announce(A)
        await passes(0.2)
        assert client.updated == [A, B, A]
        await passes(10)
        assert client.updated == [A, B, A]  # B has not changed again, nor has A
        resources.announce(A)
        assert client.updated == [A, B, A, A]

    run(test)


@pytest.mark.behaviour("resources.subscribe.bounded")
def test_while_a_client_does_not_read_all_changes_of_a_resource_are_one() -> None:
    async def test(resources: FollowedResources) -> None:
        client, quick = Reader(), Reader()
        for each in (client, quick):
            resources.subscribe(each, A, "local")
            resources.subscribe(each, B, "local")
        client.reading.clear()
        for _ in range(5):
            resources.announce(A)
            resources.announce(B)
            await passes(1.1)
        assert client.updated == []
        assert quick.updated == [A, B] * 5
        client.reading.set()
        await turns()
        assert client.updated == [A, B]
        await passes(10)
        assert client.updated == [A, B]
        resources.announce(A)
        assert client.updated == [A, B, A]

    run(test)


def test_what_changes_for_one_principal_is_told_to_nobody_else() -> None:
    async def test(resources: FollowedResources) -> None:
        alice, bob = Reader(), Reader()
        resources.subscribe(alice, A, "alice")
        resources.subscribe(bob, A, "bob")
        resources.announce(A, "alice")
        assert (alice.updated, bob.updated) == ([A], [])
        resources.announce(A)
        assert bob.updated == [A]

    run(test)


def test_who_unsubscribes_is_told_no_more_even_of_what_has_changed() -> None:
    async def test(resources: FollowedResources) -> None:
        client = Reader()
        resources.subscribe(client, A, "local")
        assert not resources.unsubscribe(client, B)
        resources.announce(A)
        resources.announce(A)
        assert resources.unsubscribe(client, A)
        assert not resources.unsubscribe(client, A)
        await passes(2)
        resources.announce(A)
        assert client.updated == [A]

        resources.subscribe(client, A, "local")
        client.reading.clear()
        resources.announce(A)
        resources.unsubscribe(client, A)
        client.reading.set()
        await turns()
        assert client.updated == [A]

    run(test)


def test_what_threads_announce_arrives_and_does_not_pile_up() -> None:
    async def test(resources: FollowedResources) -> None:
        client = Reader()

        def announce() -> None:
            for _ in range(10_000):
                resources.announce(A)
                resources.announce(B)

        resources.subscribe(client, A, "local")
        thread = threading.Thread(target=announce)
        thread.start()
        thread.join()  # the loop stands still meanwhile
        assert client.updated == []
        await turns()
        assert client.updated == [A]
        await passes(10)
        assert client.updated == [A]
        await asyncio.to_thread(resources.announce, A)  # what has arrived does not keep what comes later away
        await turns()
        assert client.updated == [A, A]

    run(test)


def test_a_stream_is_told_as_long_as_it_is_open() -> None:
    async def test(resources: FollowedResources) -> None:
        client, stream = Reader(), Reader()
        with resources.listening(client, stream, [A, B], "local"):
            resources.announce(A)
            resources.announce(A)
            stream.reading.clear()
            resources.announce(B)
        stream.reading.set()
        await passes(2)
        resources.announce(A)
        assert (client.updated, stream.updated) == ([], [A])

    run(test)


@pytest.mark.behaviour("resources.subscribe.limit")
def test_a_client_follows_no_more_than_it_may_however_it_follows() -> None:
    async def test(resources: FollowedResources) -> None:
        client, other = Reader(), Reader()
        resources.subscribe(client, A, "local")
        resources.subscribe(client, A, "local")
        with (
            resources.listening(client, Reader(), [], "local"),
            pytest.raises(TooManySubscriptions, match="at most 3"),
            resources.listening(client, Reader(), [A, B], "local"),
        ):
            pass
        with resources.listening(client, Reader(), [A, B], "local"):
            with pytest.raises(TooManySubscriptions):
                resources.subscribe(client, B, "local")
            resources.subscribe(other, B, "local")
        resources.subscribe(client, B, "local")
        resources.unsubscribe(client, A)
        with resources.listening(client, Reader(), [A, B], "local"):
            pass

    run(test, most=3)


def test_a_client_that_has_gone_is_not_kept() -> None:
    async def test(resources: FollowedResources) -> None:
        client = Reader()
        gone = weakref.ref(client)
        resources.subscribe(client, A, "local")
        resources.announce(A)
        resources.announce(A)
        del client
        gc.collect()
        assert gone() is None
        await passes(2)
        resources.announce(A)

    run(test)
