"""Our server answers as the bare SDK does, wherever DESIGN §5 does not say otherwise (`rules.py`)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING

import pytest

from differential.bare_sdk import bare_server
from differential.comparison import Speak, Tally, differences, smallest
from differential.messages import Members, Script, scripts
from differential.ours import HELLO, INTRODUCTION, InProcess, speak_to_process
from differential.rules import ASKED, BEFORE
from support.measurements import keep
from support.sizes import later

if TYPE_CHECKING:
    from mcp.server.lowlevel import Server

SEED = 20251125


FLOORS: Mapping[str, float] = {
    "result": 0.15,
    "isError": 0.015,
    "silence": 0.12,
    "-32700": 0.025,
    "-32600": 0.12,
    "-32601": 0.08,
    "-32602": 0.06,
    "-32022": 0.003,
    "-32000": 0.002,
}
"""Shares of all lines that are answered so at least; without them the comparison would prove little."""


async def speak_in_process(script: Script, expected: Sequence[int]) -> list[list[Members]]:
    ours = InProcess()
    answers = [await ours.exchange(burst, number) for burst, number in zip(script, expected, strict=True)]
    assert ours.faults == []
    return answers


async def bare_like_ours(speak: Speak) -> Server[object]:
    """The SDK's server that says the same of itself as ours and offers the same."""
    [answers] = await speak((INTRODUCTION,), [len(INTRODUCTION)])
    return bare_server([answer["result"] for answer in sorted(answers, key=lambda answer: answer["id"])])


async def check(bare: Server[object], name: str, script: Script, speak: Speak, tally: Tally) -> None:
    """Fail with the smallest script that differs, ready to be pasted into `DIFFERED_ONCE`."""
    try:
        if not await differences(bare, script, speak, tally):
            return
    except AssertionError as error:
        error.add_note(f"in script {name}: {script!r}")
        raise

    async def still_differs(shorter: Script) -> bool:
        return bool(await differences(bare, shorter, speak, Tally()))

    least = await smallest(script, still_differs)
    found = await differences(bare, least, speak, Tally())
    pytest.fail("\n".join([f"script {name} differs, and so does", repr(least), *found]))


async def compare_in_process(seed: int | str, lines: int) -> Tally:
    bare, tally = await bare_like_ours(speak_in_process), Tally()
    for name, script in scripts(seed, lines):
        await check(bare, name, script, speak_in_process, tally)
    return tally


async def compare_processes(folder: Path, seed: int | str, processes: int) -> Tally:
    """A fresh process for each script, few at a time."""
    numbers, few = count(), asyncio.Semaphore(3)

    async def speak(script: Script, expected: Sequence[int]) -> list[list[Members]]:
        async with few:
            return await asyncio.to_thread(speak_to_process, folder / str(next(numbers)), script, expected)

    bare, tally = await bare_like_ours(speak), Tally()
    named = [script for script, _ in zip(scripts(seed, 100 * processes), range(processes), strict=False)]
    await asyncio.gather(*(check(bare, name, script, speak, tally) for name, script in named))
    return tally


def assert_it_proves_something(tally: Tally) -> None:
    thin = {name: tally.outcomes[name] for name, share in FLOORS.items() if tally.outcomes[name] < share * tally.lines}
    assert thin == {}, f"of {tally.lines} lines too few are answered so"
    assert tally.compared > 0.33 * tally.lines
    assert [rule.name for rule in (*BEFORE, *ASKED) if not tally.rules[rule.name]] == []


def random_seed() -> str:
    """One that pytest shows with a failure."""
    seed = token_hex(8)
    print(f"seed {seed!r}")  # noqa: T201  # as said
    return seed


@pytest.mark.behaviour("messages.same-as-sdk")
def test_five_thousand_messages_are_answered_as_the_sdk_answers_them() -> None:
    assert_it_proves_something(asyncio.run(compare_in_process(SEED, 5_000)))


@pytest.mark.behaviour("messages.same-as-sdk")
@pytest.mark.parametrize(("processes", "compared"), [(12, 30), later(40, 100)])
def test_fresh_processes_answer_from_their_first_line_on_as_the_sdk_does(
    tmp_path: Path, processes: int, compared: int
) -> None:
    tally = asyncio.run(compare_processes(tmp_path, SEED + 1, processes))
    assert tally.scripts >= processes
    assert tally.compared > compared


@pytest.mark.ci
def test_twenty_thousand_messages_that_nobody_has_seen_before_are_answered_as_the_sdk_answers_them() -> None:
    seed = random_seed()
    assert_it_proves_something(asyncio.run(compare_in_process(seed, 20_000)))


@pytest.mark.ci
@pytest.mark.parametrize("third", range(3))  # no test may take longer than `faulthandler_timeout`, on any machine
def test_fresh_processes_answer_what_nobody_has_seen_before_as_the_sdk_does(tmp_path: Path, third: int) -> None:
    seed = random_seed()
    assert asyncio.run(compare_processes(tmp_path, seed, 40)).compared > 100


@pytest.mark.soak
def test_a_hundred_thousand_messages_are_answered_as_the_sdk_answers_them() -> None:
    seed, started = random_seed(), time.monotonic()
    tally = asyncio.run(compare_in_process(seed, 100_000))
    assert_it_proves_something(tally)
    figures = {
        "seed": seed,
        "differences": 0,
        "lines": tally.lines,
        "scripts": tally.scripts,
        "compared": tally.compared,
        "rules": dict(tally.rules.most_common()),
        "outcomes": dict(tally.outcomes.most_common()),
    }
    keep("differential", started, figures)


# --- what this test has found ---

DIFFERED_ONCE: Mapping[str, Script] = {
    "a cursor that was never given out": (
        (HELLO, b'{"jsonrpc":"2.0","id":4,"method":"tools/list","params":{"cursor":""}}'),
    ),
    "an initialize that is cancelled": (
        (HELLO, b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":0}}'),
    ),
    "a shutdown that is cancelled": (
        (HELLO,),
        (
            b'{"jsonrpc":"2.0","id":1,"method":"shutdown"}',
            b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"1"}}',
        ),
    ),
}


@pytest.mark.parametrize("script", DIFFERED_ONCE.values(), ids=DIFFERED_ONCE.keys())
def test_what_differed_once_does_so_no_more(script: Script) -> None:
    async def compare() -> None:
        await check(await bare_like_ours(speak_in_process), "known", script, speak_in_process, Tally())

    asyncio.run(compare())


# --- the checker itself ---


async def speak_falsely(script: Script, expected: Sequence[int], *, change: Members) -> list[list[Members]]:
    """As ours, but an empty result is another one."""
    answers = await speak_in_process(script, expected)
    return [[{**answer, **change} if answer.get("result") == {} else answer for answer in burst] for burst in answers]


@pytest.mark.parametrize("change", [{"result": {"x": 1}}, {"id": "else"}, {"id": 2.0}, {"jsonrpc": "2"}], ids=str)
def test_one_wrong_answer_among_many_is_found_and_shown_alone(change: Members) -> None:
    async def compare() -> None:
        bare = await bare_like_ours(speak_in_process)
        lines = [b'{"jsonrpc":"2.0","id":%d,"method":"%s"}' % (n, b"ping" if n == 2 else b"x") for n in range(5)]
        speak = partial(speak_falsely, change=change)
        with pytest.raises(pytest.fail.Exception) as found:
            await check(bare, "wrong", ((HELLO,), tuple(lines)), speak, Tally())
        assert found.value.msg is not None
        _, script, *sentences = found.value.msg.splitlines()
        assert script == repr(((b'{"jsonrpc":"2.0","id":2,"method":"ping"}',),))
        assert len(sentences) == 2

    asyncio.run(compare())
