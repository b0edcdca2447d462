"""Both servers under one script: what differs and is explained by no rule."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from differential.bare_sdk import connected
from differential.messages import Members, Script
from differential.rules import ASKED, BEFORE, Demand, Sent, State, opens_stateless

if TYPE_CHECKING:
    from mcp.server.lowlevel import Server

Expected = Members | Demand
"""One answer: this very one, or any that meets a demand."""

Speak = Callable[[Script, Sequence[int]], Awaitable[list[list[Members]]]]
"""Sends a script to our server; takes how many answers to wait for after each burst, gives the answers to each."""


_SEARCH = 60.0
"""Seconds."""

_SHOWN = 400
"""Characters of an answer in a sentence."""


@dataclass
class Tally:
    """What the traffic consisted of."""

    lines: int = 0
    scripts: int = 0
    compared: int = 0
    """Answers that had to be the SDK's."""
    rules: Counter[str] = field(default_factory=Counter[str])
    """By which rule an answer had to be another one."""
    outcomes: Counter[str] = field(default_factory=Counter[str])
    """What our server answered: `result`, `isError`, or an error's code; `silence` for lines without an answer."""


async def expectations(bare: Server[object], script: Script, tally: Tally) -> list[list[Expected]]:
    """What our server has to answer to each burst, in any order."""
    state, decided = State(), False
    expected: list[list[Expected]] = []
    async with connected(bare) as sdk:
        for burst in script:
            lines = [Sent(line) for line in burst]
            state.begin(lines)
            wanted: list[Expected] = []
            for state.place, sent in enumerate(lines):
                demand = _refusal(sent, state, tally)
                if demand is not None:
                    wanted.append(demand)
                    continue
                if sent.is_request and not sent.broken and not decided:
                    decided, state.stateless = True, opens_stateless(sent)
                answer = await sdk.ask(sent.line)
                if answer is not None:
                    wanted += _replaced(sent, answer, state, tally)
            expected.append(wanted)
    tally.scripts += 1
    tally.lines += sum(map(len, script))
    return expected


def _refusal(sent: Sent, state: State, tally: Tally) -> Demand | None:
    for rule in BEFORE:
        if rule.applies(sent, state):
            tally.rules[rule.name] += 1
            return rule.demands(sent)
    return None


def _replaced(sent: Sent, answer: Members, state: State, tally: Tally) -> list[Expected]:
    for rule in ASKED:
        if rule.applies(sent, state, answer):
            tally.rules[rule.name] += 1
            demand = rule.demands(sent)
            return [] if demand is None else [demand]
    tally.compared += 1
    state.initialized |= sent.method == "initialize" and "result" in answer
    state.closing |= sent.method == "shutdown" and "result" in answer
    return [answer]


async def differences(bare: Server[object], script: Script, speak: Speak, tally: Tally) -> list[str]:
    """One sentence for each answer that should have come and did not, and for each that came instead."""
    expected = await expectations(bare, script, tally)
    answers = await speak(script, [len(wanted) for wanted in expected])
    found: list[str] = []
    for number, (wanted, given) in enumerate(zip(expected, answers, strict=True)):
        _count(given, len(script[number]), tally)
        found += _unmatched(number, wanted, given)
    return found


def _unmatched(burst: int, wanted: Sequence[Expected], given: Sequence[Members]) -> list[str]:
    left = [_canonical(answer) for answer in given]
    missing: list[str] = []
    for answer in wanted:
        if isinstance(answer, Demand):
            continue
        if _canonical(answer) in left:
            left.remove(_canonical(answer))
        else:
            missing.append(f"burst {burst}: the SDK answers {_canonical(answer)[:_SHOWN]}")
    for demand in wanted:
        if isinstance(demand, Demand):
            met = next((text for text in left if demand.is_met_by(json.loads(text))), None)
            if met is None:
                missing.append(f"burst {burst}: DESIGN demands {demand}")
            else:
                left.remove(met)
    return missing + [f"burst {burst}: ours answers {text[:_SHOWN]}" for text in left]


def _canonical(answer: Members) -> str:
    """Equal texts for equal JSON: 1, 1.0 and true are three things, the order of keys is none."""
    return json.dumps(answer, sort_keys=True)


def _count(answers: Sequence[Members], lines: int, tally: Tally) -> None:
    for answer in answers:
        if "error" in answer:
            tally.outcomes[str(answer["error"]["code"])] += 1
        else:
            tally.outcomes["isError" if answer["result"].get("isError") else "result"] += 1
    tally.outcomes["silence"] += lines - len(answers)


async def smallest(script: Script, still_differs: Callable[[Script], Awaitable[bool]]) -> Script:
    """`script` without the lines that the difference does not need, as far as a minute's search goes."""
    until = time.monotonic() + _SEARCH
    lines = [(number, line) for number, burst in enumerate(script) for line in burst]
    place = 0
    while place < len(lines) and time.monotonic() < until:
        shorter = [*lines[:place], *lines[place + 1 :]]
        if shorter and await still_differs(_rebuilt(shorter)):
            lines = shorter
        else:
            place += 1
    return _rebuilt(lines)


def _rebuilt(lines: Sequence[tuple[int, bytes]]) -> Script:
    numbers = sorted({number for number, _ in lines})
    return tuple(tuple(line for at, line in lines if at == number) for number in numbers)
