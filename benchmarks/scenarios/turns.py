"""Turns of one long conversation: how soon Claude is asked, and what a turn costs early and late.

The API answers at once, and each side says 500 tokens a turn.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from harness.accounting import peak_memory, wait_until_idle
from harness.client import Client, line, started
from harness.contest import Contest, Sample
from harness.errors import WrongAnswer
from harness.peer import Peer
from harness.prompt_api import answering
from harness.scale import Scale
from harness.surroundings import Surroundings

_WARM_UP = 10
"""Turns of another conversation before the measurement."""

_EARLY, _AROUND = 3, 20
"""The first turn that counts, and so many count at either end of the conversation."""

_PATIENCE = 30.0
"""Seconds that a server may go on working by itself."""

_BYTES = 1500
"""Of a message of 500 tokens."""


def contests(scale: Scale) -> Sequence[Contest]:
    """The one."""
    return [
        Contest(
            name="turns",
            measure=partial(_measure, turns=scale.turns),
            tool="claude_conversation",
            compared=("first byte ms", "CPU ms early", "CPU ms late"),
            rounds=scale.conversations,
            facts={"turns": scale.turns, "bytes a message": _BYTES},
            growth=("CPU ms early", "CPU ms late"),
        )
    ]


def _measure(peer: Peer, around: Surroundings, *, turns: int) -> Sample:
    with answering() as api, started(peer, around, api.environment) as client:
        client.initialize()
        _talk(client, _WARM_UP, first_id=0)
        wait_until_idle(client.pid, _PATIENCE)
        api.arrivals()

        sent, cpu = _talk(client, turns, first_id=_WARM_UP)
        arrivals = api.arrivals()
        if len(arrivals) != turns:
            raise WrongAnswer(f"in {turns} turns Claude was asked {len(arrivals)} times")
        waits = [(came - went) * 1e3 for went, came in zip(sent, arrivals, strict=True)]
        memory = peak_memory(client.pid)
        client.leave()
    if peer.exports:
        around.collector.settle(_WARM_UP + turns)
    early, late = slice(_EARLY - 1, _EARLY - 1 + _AROUND), slice(turns - _AROUND, turns)
    return {
        "first byte ms": statistics.median(waits[early]),
        "first byte ms late": statistics.median(waits[late]),
        "CPU ms early": statistics.mean(cpu[early]) * 1e3,
        "CPU ms late": statistics.mean(cpu[late]) * 1e3,
        "peak MB": memory / 1e6,
    }


def _talk(client: Client, turns: int, *, first_id: int) -> tuple[Sequence[float], Sequence[float]]:
    """One conversation; when each message was written, and the seconds of CPU from there to its answer."""
    conversation: dict[str, str] = {}
    sent: list[float] = []
    cpu: list[float] = []
    for number in range(turns):
        arguments = {"message": f"{number:05} ".ljust(_BYTES, "m"), **conversation}
        params = {"name": "claude_conversation", "arguments": arguments}
        request = line({"jsonrpc": "2.0", "id": first_id + number, "method": "tools/call", "params": params})
        before = client.cpu()
        sent.append(time.perf_counter())
        answer = client.ask(request)
        cpu.append(client.cpu() - before)
        conversation = {"conversation_id": _conversation_of(answer, first_id + number)}
    return sent, cpu


def _conversation_of(answer: dict[str, Any], wanted: int) -> str:
    result = answer.get("result", {})
    if answer.get("id") != wanted or result.get("isError") or "structuredContent" not in result:
        raise WrongAnswer(f"no answer to a turn: {str(answer)[:300]}")
    return result["structuredContent"]["conversation_id"]
