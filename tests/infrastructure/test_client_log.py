from __future__ import annotations

import asyncio
import gc
import logging
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Literal

import pytest

from support.tool_calls import FakeClient
from tfo_mcp.domain.log_level import LogLevel
from tfo_mcp.infrastructure.client_log import FollowedLog
from tfo_mcp.infrastructure.config import LoggingSettings, Settings

pytestmark = pytest.mark.anyio

log = logging.getLogger("tfo_mcp.somewhere")

Level = Literal["debug", "info", "warning", "error", "critical"]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    project = logging.getLogger("tfo_mcp")
    before = (list(project.handlers), project.level)
    yield
    for handler in set(project.handlers) - set(before[0]):
        project.removeHandler(handler)
    project.setLevel(before[1])


class Reader(FakeClient):
    """A client that reads or does not."""

    def __init__(self) -> None:
        super().__init__()
        self.reading = asyncio.Event()
        self.reading.set()

    def log(self, level: str, logger: str, data: Mapping[str, Any]) -> bool:
        return self.reading.is_set() and super().log(level, logger, data)

    async def reads(self) -> None:
        await self.reading.wait()

    @property
    def messages(self) -> list[str]:
        return [data["message"] for _, _, data in self.logged]


def followed(level: Level = "info") -> FollowedLog:
    return FollowedLog(Settings(logging=LoggingSettings(level=level)))


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_record_arrives_before_the_call_that_logged_it_returns() -> None:
    client = Reader()
    followed().follow(client, LogLevel.INFO)
    log.info("took %d s", 3, extra={"tool": "echo"})
    assert client.logged == [("info", "tfo_mcp.somewhere", {"message": "took 3 s", "tool": "echo"})]


async def test_each_of_two_clients_gets_what_it_follows() -> None:
    one, other, followed_log = Reader(), Reader(), followed()
    followed_log.follow(one, LogLevel.DEBUG)
    followed_log.follow(other, LogLevel.ERROR)
    log.debug("little")
    log.error("much")
    assert (one.messages, other.messages) == (["little", "much"], ["much"])


async def test_what_a_thread_logs_arrives_too() -> None:
    client = Reader()
    followed().follow(client, LogLevel.INFO)
    thread = threading.Thread(target=lambda: [log.info("record %d", number) for number in range(50)])
    thread.start()
    thread.join()
    await turns()
    assert client.messages == [f"record {number}" for number in range(50)]


async def test_libraries_are_not_heard() -> None:
    client = Reader()
    followed().follow(client, LogLevel.DEBUG)
    logging.getLogger("library").error("what stood in a request")
    assert client.logged == []


@pytest.mark.behaviour("logging.messages.bounded")
async def test_who_does_not_read_gets_the_first_thousand_and_the_count_of_the_rest() -> None:
    client = Reader()
    followed().follow(client, LogLevel.INFO)
    client.reading.clear()
    for number in range(1500):
        log.info("record %d", number)
    assert client.logged == []
    client.reading.set()
    await turns()
    assert client.messages == [f"record {number}" for number in range(1000)]
    log.info("next")
    log.info("last")
    assert [data for _, _, data in client.logged[1000:]] == [{"message": "next", "dropped": 500}, {"message": "last"}]


async def test_what_json_has_no_form_for_is_shown_all_the_same() -> None:
    class Broken:
        def __repr__(self) -> str:
            raise ValueError("no repr")

    class Odd:
        def __repr__(self) -> str:
            return "odd at https://user:hunter2@host"

    client = Reader()
    followed().follow(client, LogLevel.INFO)
    endless: list[object] = []
    endless.append(endless)
    log.info("\udcff and \x1b[2J", extra={"value": Odd(), "many": {1: (2, {3})}, "huge": 2**70})
    log.info("broken", extra={"value": Broken()})
    log.info("endless", extra={"value": endless})
    with suppress(TypeError):  # pytest's own handler lets it through
        log.info("%d is no number", "a word")
    assert [data for _, _, data in client.logged] == [
        {
            "message": "\\udcff and \\x1b[2J",
            "value": "odd at https://***@host",
            "many": {"1": [2, [3]]},
            "huge": 2**70,
        },
        {"message": "a record cannot be shown: ValueError"},
        {"message": "a record cannot be shown: RecursionError"},
        {"message": "a record cannot be shown: TypeError"},
    ]


async def test_a_request_gets_all_that_it_logged_before_it_ends_and_nothing_of_others() -> None:
    client, followed_log = Reader(), followed()

    async def request(name: str, level: LogLevel | None) -> None:
        if level is None:
            log.error("of %s", name)
            return
        async with followed_log.following(client, level):
            log.debug("of %s", name)
            await asyncio.to_thread(log.debug, "of %s, in a thread", name)
            client.reading.clear()
            log.info("of %s, later", name)
            asyncio.get_running_loop().call_later(0.05, client.reading.set)
        assert client.messages[-1] == f"of {name}, later"

    await asyncio.gather(request("one", LogLevel.DEBUG), request("silent", None))
    assert client.messages == ["of one", "of one, in a thread", "of one, later"]
    log.critical("of nobody")
    assert len(client.messages) == 3


async def test_what_a_request_leaves_running_logs_to_nobody_once_it_has_ended() -> None:
    client, followed_log = Reader(), followed()
    ended = asyncio.Event()

    async def stay() -> None:
        await ended.wait()
        log.critical("too late")

    async with followed_log.following(client, LogLevel.DEBUG):
        left = asyncio.create_task(stay())
    log.critical("too late, in the task of the request")
    ended.set()
    await left
    assert client.logged == []


async def test_a_request_that_fails_gets_what_it_logged_once_the_client_reads() -> None:
    client, followed_log = Reader(), followed()
    client.reading.clear()

    async def request() -> None:
        async with followed_log.following(client, LogLevel.DEBUG):
            log.error("about to fail")
            asyncio.get_running_loop().call_later(0.05, client.reading.set)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await request()
    assert client.messages == ["about to fail"]


async def test_a_request_that_is_cancelled_waits_for_nobody() -> None:
    client, followed_log = Reader(), followed()
    client.reading.clear()
    begun = asyncio.Event()

    async def request() -> None:
        async with followed_log.following(client, LogLevel.DEBUG):
            log.error("never read")
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(request())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert client.logged == []


@pytest.mark.parametrize("level", ["debug", "warning", "critical"])
async def test_what_a_client_follows_is_logged_for_as_long_as_it_does(level: Level) -> None:
    project = logging.getLogger("tfo_mcp")
    ordinary = logging.getLevelNamesMapping()[level.upper()]
    project.setLevel(ordinary)
    client, followed_log = Reader(), followed(level)
    async with followed_log.following(client, LogLevel.DEBUG):
        assert project.level == logging.DEBUG
    assert project.level == ordinary
    followed_log.follow(client, LogLevel.INFO)
    assert project.level == min(ordinary, logging.INFO)
    followed_log.follow(client, LogLevel.EMERGENCY)
    assert project.level == ordinary


async def test_a_client_that_has_gone_is_not_kept() -> None:
    client, followed_log = Reader(), followed()
    followed_log.follow(client, LogLevel.INFO)
    log.info("a record")
    gone = weakref.ref(client)
    del client
    gc.collect()
    assert gone() is None
    log.info("to nobody")
