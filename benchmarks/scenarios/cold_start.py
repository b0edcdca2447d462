"""From nothing to the first answers: what a user waits for when a client starts the server."""

from __future__ import annotations

import time
from collections.abc import Sequence

from harness.client import HELLO, READY, check_echo, echo_call, line, started
from harness.contest import Contest, Sample
from harness.peer import Peer
from harness.scale import Scale
from harness.surroundings import Surroundings


def contests(scale: Scale) -> Sequence[Contest]:
    """The one. In the rehearsal bytecode is compiled and the files come into the page cache."""
    return [
        Contest(
            name="cold start",
            measure=_measure,
            compared=("initialize ms", "first call ms", "initialize CPU ms", "first call CPU ms"),
            rounds=scale.starts,
            rehearsals=1,
        )
    ]


def _measure(peer: Peer, around: Surroundings) -> Sample:
    hello, call = line(HELLO), line(READY) + echo_call(0)
    began = time.perf_counter()
    with started(peer, around) as client:
        client.ask(hello)
        initialized, initialized_cpu = time.perf_counter() - began, client.cpu()
        answer = client.ask(call)
        called, called_cpu = time.perf_counter() - began, client.cpu()
        check_echo(answer, peer.prefix)
        client.leave()
    if peer.exports:
        around.collector.settle(1)
    return {
        "initialize ms": initialized * 1e3,
        "first call ms": called * 1e3,
        "initialize CPU ms": initialized_cpu * 1e3,
        "first call CPU ms": called_cpu * 1e3,
    }
