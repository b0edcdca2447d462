"""The benchmarks believe nobody, and can still be run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from harness.accounting import cpu_seconds, wait_until_idle
from harness.client import started
from harness.contest import Contest, Sample, Spread, again, hold
from harness.errors import WrongAnswer
from harness.peer import FOLDER, Peer
from harness.surroundings import Surroundings, surroundings

LIAR = str(Path(__file__).with_name("liar.py"))

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


@pytest.mark.parametrize("way", ["another text", "an error", "no result", "another id", "twice", "leaves"])
def test_whoever_answers_otherwise_has_no_figures(around: Surroundings, way: str) -> None:
    with started(speaking(way), around) as client:
        client.initialize()
        with pytest.raises(WrongAnswer):
            client.echo(range(4), in_flight=2, prefix="")


def test_calls_that_were_not_exported_leave_no_figures(around: Surroundings) -> None:
    around.collector.settle(0)
    with pytest.raises(WrongAnswer):
        around.collector.settle(1)


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
    contest = Contest(name="a contest", measure=measure, compared=("figure",), rounds=2, rehearsals=1)
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


@pytest.mark.ci
def test_a_small_run_measures_every_scenario_and_keeps_it(tmp_path: Path) -> None:
    """Without what must be installed from elsewhere. That every call was answered and exported, it checks itself."""
    arguments = ("--smoke", "--peers", "ours", "--peers", "python_sdk", "--out", str(tmp_path))
    subprocess.run([sys.executable, str(FOLDER / "run.py"), *arguments], check=True, timeout=170)
    kept = {path.stem: json.loads(path.read_text("utf-8")) for path in tmp_path.iterdir()}
    assert kept.keys() == {f"bench-{path.stem.replace('_', '-')}" for path in (FOLDER / "scenarios").glob("*.py")}
    names = {"tfo-mcp", "tfo-mcp again", "tfo-mcp, no collector", "mcp MCPServer", "mcp low-level"}
    for content in kept.values():
        assert content["packages"].keys() == names
        for contest in content["contests"].values():
            assert contest["figures"].keys() == names
            assert all(ratios.keys() == names - {"tfo-mcp"} for ratios in contest["ratios of tfo-mcp to"].values())
            for figures in contest["figures"].values():
                assert [name for name, spread in figures.items() if spread["median"] <= 0] in ([], ["spans dropped %"])
