"""The benchmarks believe nobody, and can still be run."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from harness.accounting import cpu_seconds, wait_until_idle
from harness.client import Client, echo_call, started
from harness.contest import Contest, Sample, Spread, again, hold
from harness.errors import WrongAnswer
from harness.peer import FOLDER, Peer
from harness.prompt_api import answering
from harness.surroundings import Surroundings, surroundings

LIAR = str(Path(__file__).with_name("liar.py"))

LOADS: Mapping[str, Callable[[Client], object]] = {
    "echo": lambda client: client.echo(range(4), in_flight=2, prefix=""),
    "pace": lambda client: client.pace(range(4), per_second=1000, prefix=""),
    "flood": lambda client: client.flood(0, seconds=0.2, in_flight=2, prefix=""),
}

BURN = "while time.process_time() < 0.2: pass"


def speaking(way: str) -> Peer:
    return Peer(name=way, command=(sys.executable, LIAR, way))


@pytest.fixture(scope="module")
def around() -> Generator[Surroundings]:
    with surroundings() as made:
        yield made


def test_honest_answers_are_believed_and_timed(around: Surroundings) -> None:
    with started(speaking("honest"), around) as client:
        client.initialize()
        load = client.echo(range(5, 105), in_flight=8, prefix="")
        client.leave()
    assert len(load.latencies) == 100
    assert 0 < min(load.latencies) <= max(load.latencies) <= load.seconds


def test_calls_are_sent_at_a_steady_rate_and_timed(around: Surroundings) -> None:
    with started(speaking("honest"), around) as client:
        client.initialize()
        load = client.pace(range(5, 25), per_second=100, prefix="")
        client.leave()
    assert len(load.latencies) == 20
    assert load.seconds >= 0.19
    assert 0 < min(load.latencies) <= max(load.latencies) <= load.seconds


def test_a_flood_ends_in_time_and_every_call_of_it_is_answered(around: Surroundings) -> None:
    with started(speaking("honest"), around) as client:
        client.initialize()
        calls = client.flood(5, seconds=0.1, in_flight=8, prefix="")
        assert calls >= 8
        assert client.ask(echo_call(5 + calls))["id"] == 5 + calls
        client.leave()


@pytest.mark.parametrize("way", ["another text", "an error", "no result", "another id", "twice", "leaves"])
@pytest.mark.parametrize("how", list(LOADS))
def test_whoever_answers_otherwise_has_no_figures(around: Surroundings, way: str, how: str) -> None:
    with started(speaking(way), around) as client:
        client.initialize()
        with pytest.raises(WrongAnswer):
            LOADS[how](client)


def test_calls_that_were_not_exported_leave_no_figures(around: Surroundings) -> None:
    around.collector.settle(0)
    with pytest.raises(WrongAnswer):
        around.collector.settle(1)
    around.collector.account(0, 0)
    for calls, spans in ((0, 1), (1, 0)):
        with pytest.raises(WrongAnswer):
            around.collector.account(calls, spans)


def test_threads_and_children_are_counted_also_when_they_have_ended() -> None:
    child = f"import time\n{BURN}"
    program = f"""
import subprocess, sys, threading, time
def work():
    {BURN}
thread = threading.Thread(target=work)
thread.start()
thread.join()
subprocess.run([sys.executable, "-c", {child!r}], check=True)
running = {child!r} + "\\nprint('burnt', flush=True)\\ninput()"
subprocess.Popen([sys.executable, "-c", running], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL).wait()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"burnt\n"
            wait_until_idle(process.pid, 20)
            assert 0.55 <= cpu_seconds(process.pid) < 1
        finally:
            process.kill()


def test_everyone_is_measured_once_a_round_and_nobody_is_always_first(around: Surroundings) -> None:
    order: list[str] = []

    def measure(peer: Peer, _around: Surroundings) -> Sample:
        order.append(peer.name)
        return {"figure": float(len(order))}

    ours = speaking("ours")
    contest = Contest(
        name="a contest", measure=measure, compared=("figure",), differences=("figure",), rounds=2, rehearsals=1
    )
    result = hold(contest, [ours, again(ours), speaking("theirs")], around)
    assert [order[at : at + 3] for at in (0, 3, 6)] == [
        ["theirs", "ours", "ours again"],
        ["ours", "ours again", "theirs"],
        ["ours again", "theirs", "ours"],
    ]
    assert result.figures["ours"]["figure"] == Spread(6.5, 4.0, 9.0)
    assert result.ratios["figure"] == {
        "ours again": Spread(1.043, 0.8, 1.286),
        "theirs": Spread(0.8958, 0.6667, 1.125),
    }
    assert result.differences["figure"] == {"ours again": Spread(0.5, -1.0, 2.0), "theirs": Spread(-0.5, -2.0, 1.0)}


def test_a_contest_may_choose_who_takes_part(around: Surroundings) -> None:
    def measure(peer: Peer, _around: Surroundings) -> Sample:
        return {"figure": float(len(peer.name))}

    contest = Contest(name="a contest", measure=measure, compared=("figure",), rounds=1, cast=lambda peers: peers[1:])
    result = hold(contest, [speaking("ours"), speaking("theirs"), speaking("the others")], around)
    assert result.figures.keys() == {"theirs", "the others"}


def test_who_has_not_the_tool_is_not_asked_and_what_is_beyond_the_others_is_told_apart(around: Surroundings) -> None:
    took = {"ours": (5.0, 8.0), "ours again": (6.0, 9.0), "bare": (1.0, 2.0)}

    def measure(peer: Peer, _around: Surroundings) -> Sample:
        early, late = took[peer.name]
        return {"early": early, "late": late}

    ours = Peer(name="ours", command=(), tools=frozenset({"echo", "talk"}))
    bare = Peer(name="bare", command=(), tools=frozenset({"talk"}))
    contest = Contest(
        name="a contest", measure=measure, compared=("late",), rounds=1, tool="talk", growth=("early", "late")
    )
    result = hold(contest, [ours, again(ours), speaking("an echo"), bare], around)
    assert result.figures.keys() == took.keys()
    assert result.ratios == {
        "late": {"ours again": Spread(0.8889, 0.8889, 0.8889), "bare": Spread(4.0, 4.0, 4.0)},
        "growth": {"bare": Spread(1.5, 1.5, 1.5)},
    }


def test_the_api_tells_when_the_first_byte_of_each_message_came() -> None:
    with answering() as api:
        address = urlsplit(api.environment["ANTHROPIC_BASE_URL"])
        connection = HTTPConnection(address.hostname or "", address.port, timeout=20)
        before = time.perf_counter()
        for path, status in (("/v1/messages", 200), ("/v1/messages/count_tokens", 404), ("/v1/messages", 200)):
            connection.request("POST", path, b"{}")
            answer = connection.getresponse()
            answer.read()
            assert answer.status == status
        connection.close()
        first, second = api.arrivals()
        assert before < first < second < time.perf_counter()
        assert api.arrivals() == []


@pytest.mark.ci
def test_a_small_run_measures_every_scenario_and_keeps_it(tmp_path: Path) -> None:
    """Without what must be installed from elsewhere. That every call was answered and exported, it checks itself."""
    modules = ("ours", "python_sdk", "bare_loop")
    arguments = ("--smoke", *(word for module in modules for word in ("--peers", module)), "--out", str(tmp_path))
    subprocess.run([sys.executable, str(FOLDER / "run.py"), *arguments], check=True, timeout=170)
    kept = {path.stem: json.loads(path.read_text("utf-8")) for path in tmp_path.iterdir()}
    assert kept.keys() == {f"bench-{path.stem.replace('_', '-')}" for path in (FOLDER / "scenarios").glob("*.py")}
    echo = {"tfo-mcp", "tfo-mcp again", "tfo-mcp, no collector", "mcp MCPServer", "mcp low-level"}
    turns = {"tfo-mcp", "tfo-mcp again", "bare loop"}
    others = {
        "turns": turns,
        "telemetry, 500 calls a second": {
            "tfo-mcp",
            "tfo-mcp again",
            "tfo-mcp, telemetry off",
            "tfo-mcp, telemetry off again",
        },
        "telemetry, 64 in flight": {"tfo-mcp", "tfo-mcp, ring of 1024"},
    }
    for content in kept.values():
        assert content["packages"].keys() == echo | turns
        for name, contest in content["contests"].items():
            names = others.get(name, echo)
            assert contest["figures"].keys() == names
            ratios = contest["ratios of tfo-mcp to"]
            assert ratios.pop("growth", {"bare loop": ...}).keys() == {"bare loop"}
            differences = contest.get("differences of tfo-mcp from", {})
            for compared in (*ratios.values(), *differences.values()):
                assert compared.keys() == names - {"tfo-mcp"}
            for figures in contest["figures"].values():
                assert [name for name, spread in figures.items() if spread["median"] <= 0] in ([], ["spans dropped %"])
