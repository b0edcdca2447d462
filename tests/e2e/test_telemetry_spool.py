"""What the server has recorded arrives, whatever happens to the collector and to the server meanwhile."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from support.otlp import DEADLINE, Receiver, Reply, free_port, receiving
from support.server import Server, environment, eventually, serving


def exporting(port: int) -> dict[str, str]:
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    }


def call(server: Server, names: Sequence[str]) -> None:
    for name in names:
        assert not server.call_tool(name, "echo", {"message": name})["isError"]


def ids_of(receiver: Receiver) -> list[str]:
    """The ids of the requests whose spans have arrived."""
    return [
        str(span["attributes"]["jsonrpc.request.id"])
        for span in receiver.spans()
        if span["name"].startswith("tools/call")
    ]


def waiting(folder: Path, signal: str = "traces") -> int:
    path = folder / "state" / "spool.db"
    if not path.exists():
        return 0
    with closing(sqlite3.connect(path)) as database:
        if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'parcels'").fetchall():
            return 0
        query = "SELECT total(items) FROM parcels WHERE signal = ?"
        return int(database.execute(query, (signal,)).fetchone()[0])


def export(folder: Path, port: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tfo_mcp", "export", *arguments],
        env=environment(folder, exporting(port)),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


@pytest.mark.behaviour("telemetry.spooled")
def test_what_was_recorded_without_a_collector_arrives_after_the_next_start(tmp_path: Path) -> None:
    port = free_port()
    first, second = [f"a{number}" for number in range(20)], ["b0"]
    with serving(tmp_path, env=exporting(port)) as server:
        server.begin("2025-11-25")
        call(server, first)
        server.close_input()
        assert server.wait() == 0
    assert waiting(tmp_path) >= 40
    with receiving("http", port=port) as receiver, serving(tmp_path, env=exporting(port)) as server:
        server.begin("2025-11-25")
        call(server, second)
        assert receiver.wait_for(lambda: {*first, *second} <= {*ids_of(receiver)}, DEADLINE)
        server.close_input()
        assert server.wait() == 0
        assert len({span["span_id"] for span in receiver.spans()}) == len(receiver.spans())
        instances = {span["resource"]["service.instance.id"] for span in receiver.spans()}
        assert len(instances) == 2
    assert waiting(tmp_path) == waiting(tmp_path, "metrics") == 0


@pytest.mark.behaviour("telemetry.spooled")
def test_what_was_committed_before_kill_9_arrives(tmp_path: Path) -> None:
    port = free_port()
    names = [f"a{number}" for number in range(20)]
    with serving(tmp_path, env=exporting(port)) as server:
        server.begin("2025-11-25")
        call(server, names)
        eventually(lambda: waiting(tmp_path) >= 2 * len(names))
        server.process.kill()
    with receiving("http", port=port) as receiver:
        flushed = export(tmp_path, port, "flush")
        assert (flushed.returncode, flushed.stdout, flushed.stderr) == (0, "nothing waits\n", "")
        assert {*names} <= {*ids_of(receiver)}


@pytest.mark.behaviour("telemetry.spooled")
def test_of_several_servers_one_sends_for_all_and_the_next_one_when_it_is_killed(tmp_path: Path) -> None:
    with receiving("http") as receiver:
        port = int(receiver.endpoint.rsplit(":", 1)[1])
        with serving(tmp_path, env=exporting(port)) as one, serving(tmp_path, env=exporting(port)) as two:
            for server, name in ((one, "one"), (two, "two")):
                server.begin("2025-11-25")
                call(server, [name])
                assert receiver.wait_for(lambda name=name: name in ids_of(receiver), DEADLINE)
            one.process.kill()
            call(two, ["after"])
            assert receiver.wait_for(lambda: "after" in ids_of(receiver), DEADLINE)
            two.close_input()
            assert two.wait() == 0


@pytest.mark.behaviour("telemetry.spooled")
def test_what_waits_and_what_was_refused_is_told_sent_and_repeated_by_hand(tmp_path: Path) -> None:
    with receiving("http") as receiver:
        port = int(receiver.endpoint.rsplit(":", 1)[1])
        assert export(tmp_path, port, "status").stdout == f"collector: {receiver.endpoint}\nnothing waits\n"
        receiver.replies = [Reply(400)] * 100
        with serving(tmp_path, env=exporting(port)) as server:
            server.begin("2025-11-25")
            call(server, ["a"])
            server.close_input()
            assert server.wait() == 0
        receiver.replies = []
        assert ids_of(receiver) == []
        told = export(tmp_path, port, "status")
        assert "refused: " in told.stdout
        assert "waiting" not in told.stdout
        assert export(tmp_path, port, "replay").stdout.startswith("waiting once more: ")
        assert "waiting: 3 spans, " in export(tmp_path, port, "status").stdout
        assert export(tmp_path, port, "flush").stdout == "nothing waits\n"
        assert ids_of(receiver) == ["a"]
    unreachable = export(tmp_path, free_port(), "flush", "--timeout", "0.5")
    assert (unreachable.returncode, unreachable.stdout) == (0, "nothing waits\n")


@pytest.mark.behaviour("telemetry.spooled")
def test_a_collector_that_is_not_there_is_said_by_hand(tmp_path: Path) -> None:
    port = free_port()
    with serving(tmp_path, env=exporting(port)) as server:
        server.begin("2025-11-25")
        call(server, ["a"])
        server.close_input()
        assert server.wait() == 0
    flushed = export(tmp_path, port, "flush", "--timeout", "1")
    assert flushed.returncode == 1
    assert flushed.stdout.startswith("waiting: 3 spans, ")
    assert "the collector did not take traces: ConnectError" in flushed.stderr
