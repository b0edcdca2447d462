"""Calls of `echo` over stdio, in the handshake era: what one costs, how long it takes, what it leaves in memory."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from functools import partial

from harness.accounting import peak_memory, wait_until_idle
from harness.client import started
from harness.contest import Contest, Sample
from harness.peer import Peer
from harness.scale import Scale
from harness.surroundings import Surroundings

_WARM_UP = 200
"""Calls before the measurement."""

_PATIENCE = 30.0
"""Seconds that a server may go on working by itself."""


def contests(scale: Scale) -> Sequence[Contest]:
    """Many calls at a time, then one by one."""
    return [
        _contest("stdio, 64 in flight", in_flight=64, calls=scale.calls, rounds=scale.rounds),
        _contest("stdio, 1 in flight", in_flight=1, calls=max(1, scale.calls // 4), rounds=scale.rounds),
    ]


def _contest(name: str, *, in_flight: int, calls: int, rounds: int) -> Contest:
    return Contest(
        name=name,
        measure=partial(_measure, in_flight=in_flight, calls=calls),
        compared=("calls per CPU second", "calls per second", "p50 ms"),
        rounds=rounds,
        facts={"calls": calls},
    )


def _measure(peer: Peer, around: Surroundings, *, in_flight: int, calls: int) -> Sample:
    """The CPU is counted until all that the calls have caused is done, their export included."""
    with started(peer, around) as client:
        client.initialize()
        client.echo(range(_WARM_UP), in_flight=in_flight, prefix=peer.prefix)
        if peer.exports:
            around.collector.wait_for(_WARM_UP)
        wait_until_idle(client.pid, _PATIENCE)

        before = client.cpu()
        load = client.echo(range(_WARM_UP, _WARM_UP + calls), in_flight=in_flight, prefix=peer.prefix)
        if peer.exports:
            around.collector.wait_for(_WARM_UP + calls)
        wait_until_idle(client.pid, _PATIENCE)
        cpu = client.cpu() - before

        memory = peak_memory(client.pid)
        client.leave()
    dropped = {"spans dropped %": around.collector.settle(_WARM_UP + calls) * 100} if peer.exports else {}
    percentiles = statistics.quantiles(load.latencies, n=100, method="inclusive")
    return {
        "calls per CPU second": calls / cpu,
        "CPU µs a call": cpu / calls * 1e6,
        "calls per second": calls / load.seconds,
        "p50 ms": percentiles[49] * 1e3,
        "p99 ms": percentiles[98] * 1e3,
        "peak MB": memory / 1e6,
        **dropped,
    }
