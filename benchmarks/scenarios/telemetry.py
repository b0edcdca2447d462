"""What telemetry costs: the same server without it and with all of it, at a steady rate and at its limits."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from harness.accounting import memory, peak_memory, wait_until_idle
from harness.client import started
from harness.contest import AGAIN, Contest, Sample
from harness.errors import WrongAnswer
from harness.peer import Peer
from harness.scale import Scale
from harness.surroundings import Surroundings

_RATE = 500
"""Calls a second."""

_WARM_UP = 500
"""Calls before the measurement, at the same rate."""

_IN_FLIGHT = 64

_SPANS = 2
"""Of one call: the request's and the tool's."""

_SMALL_RING = 1024
"""Records that may wait, where more than that are sure to come."""

_PATIENCE = 60.0
"""Seconds that a server may go on working by itself."""

_OFF = {"TELEMETRYFLOW_MCP_TELEMETRY_ENABLED": "false"}
_LITTLE_ROOM = {"TELEMETRYFLOW_MCP_TELEMETRY_RING_CAPACITY": str(_SMALL_RING)}


def contests(scale: Scale) -> Sequence[Contest]:
    """At a rate that leaves time, where the cost of one call can be told; and as fast as the server answers."""
    calls = int(_RATE * scale.paced_seconds)
    return [
        Contest(
            name=f"telemetry, {_RATE} calls a second",
            measure=partial(_measure_paced, calls=calls),
            compared=("CPU µs a call", "p50 ms", "p99 ms"),
            differences=("CPU µs a call", "p50 ms", "p99 ms"),
            rounds=scale.paced_rounds,
            facts={"calls": calls},
            cast=_with_and_without,
        ),
        Contest(
            name=f"telemetry, {_IN_FLIGHT} in flight",
            measure=partial(_measure_flooded, seconds=scale.flood_seconds),
            compared=("calls per second",),
            rounds=1,
            facts={"seconds": round(scale.flood_seconds)},
            cast=_with_much_room_and_little,
        ),
    ]


def _with_and_without(peers: Sequence[Peer]) -> Sequence[Peer]:
    ours = _ours(peers)
    off = replace(ours, name=f"{ours.name}, telemetry off", environment=_OFF, collector_variable=None)
    return [
        ours,
        replace(ours, name=f"{ours.name}{AGAIN}"),
        off,
        replace(off, name=f"{off.name}{AGAIN}"),
    ]


def _with_much_room_and_little(peers: Sequence[Peer]) -> Sequence[Peer]:
    ours = _ours(peers)
    return [ours, replace(ours, name=f"{ours.name}, ring of {_SMALL_RING}", environment=_LITTLE_ROOM)]


def _ours(peers: Sequence[Peer]) -> Peer:
    """The first that exports."""
    if (ours := next((peer for peer in peers if peer.exports), None)) is None:
        raise WrongAnswer("telemetry: nobody who takes part exports anything")
    return ours


def _measure_paced(peer: Peer, around: Surroundings, *, calls: int) -> Sample:
    """The CPU is counted until all that the calls have caused is done, their export included."""
    with started(peer, around) as client:
        client.initialize()
        client.pace(range(_WARM_UP), per_second=_RATE, prefix=peer.prefix)
        if peer.exports:
            around.collector.wait_for(_WARM_UP)
        wait_until_idle(client.pid, _PATIENCE)

        before = client.cpu()
        load = client.pace(range(_WARM_UP, _WARM_UP + calls), per_second=_RATE, prefix=peer.prefix)
        if peer.exports:
            around.collector.wait_for(_WARM_UP + calls)
        wait_until_idle(client.pid, _PATIENCE)
        cpu = client.cpu() - before

        peak = peak_memory(client.pid)
        client.leave()
    if peer.exports:
        around.collector.settle(_WARM_UP + calls)
    percentiles = statistics.quantiles(load.latencies, n=100, method="inclusive")
    return {
        "CPU µs a call": cpu / calls * 1e6,
        "p50 ms": percentiles[49] * 1e3,
        "p99 ms": percentiles[98] * 1e3,
        "peak MB": peak / 1e6,
    }


def _measure_flooded(peer: Peer, around: Surroundings, *, seconds: float) -> Sample:
    """Ends only where the server's counters are the client's, and every span has arrived or is told as dropped."""
    with started(peer, around) as client:
        client.initialize()
        early = client.flood(0, seconds=seconds / 2, in_flight=_IN_FLIGHT, prefix=peer.prefix)
        half_way = memory(client.pid)
        calls = early + client.flood(early, seconds=seconds / 2, in_flight=_IN_FLIGHT, prefix=peer.prefix)
        peak = peak_memory(client.pid)
        around.collector.wait_until_quiet()
        wait_until_idle(client.pid, _PATIENCE)
        client.leave()
    spans = 1 + _SPANS * calls  # and that of `initialize`
    dropped = around.collector.account(calls, spans)
    return {
        "calls per second": calls / seconds,
        "MB half way": half_way / 1e6,
        "peak MB": peak / 1e6,
        "spans": spans,
        "spans dropped %": dropped * 100,
    }
