"""`tfo-mcp tail`, `stats` and `traces show`, on what a real server recorded."""

from __future__ import annotations

import json
import os
import re
import selectors
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from support.command_line import run
from support.server import DEADLINE, Answer, environment, serving

NO_TRACE = "0" * 32


def recorded(folder: Path) -> None:
    """Three calls that worked and one that did not."""
    with serving(folder) as server:
        server.begin("2025-11-25")
        for number in range(3):
            server.call_tool(number, "echo", {"message": "hello"})
        server.call_tool("wrong", "echo", {"massage": "hello"})
        server.close_input()
        assert server.wait() == 0


def told(folder: Path, *arguments: str) -> str:
    ended = run(folder, *arguments)
    assert (ended.returncode, ended.stderr) == (0, ""), ended
    return ended.stdout


def lines(text: str) -> Sequence[Answer]:
    return [json.loads(line) for line in text.splitlines()]


def test_stats_counts_what_was_called(tmp_path: Path) -> None:
    recorded(tmp_path)

    counts = {(count["kind"], count["name"]): count for count in lines(told(tmp_path, "stats", "--json"))}
    assert counts["tool", "echo"]["calls"] == 4
    assert counts["tool", "echo"]["errors_by_type"] == {"invalid_arguments": 1}
    shown = told(tmp_path, "stats", "--window", "15m")
    assert re.search(r"^tool +echo +4 +1 +[\d.]+ +[\d.]+ +[\d.]+ +[\d.]+$", shown, re.MULTILINE)
    assert "invalid_arguments" in shown


def test_tail_shows_the_last_calls_and_traces_show_each_of_them_whole(tmp_path: Path) -> None:
    recorded(tmp_path)

    calls = lines(told(tmp_path, "tail", "--no-follow", "--json"))
    assert [call["name"] for call in calls] == ["initialize", *["tools/call echo"] * 4]
    assert lines(told(tmp_path, "tail", "--no-follow", "-n", "2", "--json")) == calls[-2:]
    (failed,) = lines(told(tmp_path, "tail", "--no-follow", "--failed", "--json"))
    assert failed == calls[-1]
    assert failed["trace_id"] in told(tmp_path, "tail", "--no-follow", "-n", "1")

    spans = lines(told(tmp_path, "traces", "show", failed["trace_id"], "--json"))
    assert [span["name"] for span in spans] == ["tools/call echo", "tools.execute"]
    tree = told(tmp_path, "traces", "show", failed["trace_id"].upper()).splitlines()
    assert [line.partition("  +")[0] for line in tree] == ["tools/call echo", "  tools.execute"]
    assert "invalid (invalid_arguments)" in tree[1]


@contextmanager
def following(folder: Path) -> Generator[tuple[subprocess.Popen[bytes], selectors.DefaultSelector]]:
    with (
        subprocess.Popen(
            [sys.executable, "-m", "tfo_mcp", "tail", "-n", "0", "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**environment(folder), "PYTHONUNBUFFERED": "1"},
        ) as process,
        selectors.DefaultSelector() as selector,
    ):
        assert process.stdout is not None
        selector.register(process.stdout, selectors.EVENT_READ)
        try:
            yield process, selector
        finally:
            process.kill()


def test_tail_follows_the_calls_of_a_running_server_until_it_is_interrupted(tmp_path: Path) -> None:
    recorded(tmp_path)
    with following(tmp_path) as (process, selector), serving(tmp_path) as server:
        server.begin("2025-11-25")
        assert process.stdout is not None
        read = b""
        deadline = time.monotonic() + DEADLINE
        for number in range(10_000):
            server.call_tool(number, "echo", {"message": "hello"})
            if selector.select(0.05):
                read += os.read(process.stdout.fileno(), 1 << 16)
            if read.count(b"tools/call echo") >= 2:
                break
            assert time.monotonic() < deadline
        assert {call["outcome"] for call in lines(read[: read.rindex(b"\n") + 1].decode())} == {"completed"}
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""


@pytest.mark.parametrize("arguments", [("stats",), ("tail", "--no-follow"), ("traces", "show", NO_TRACE)])
def test_where_nothing_is_recorded_that_is_said_and_nothing_is_made(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    ended = run(tmp_path, *arguments)

    assert "nothing is recorded yet" in ended.stderr
    assert ended.returncode == (1 if arguments[0] == "traces" else 0)
    assert not (tmp_path / "state").exists()


def test_a_recorder_that_cannot_be_read_is_said_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "telemetry.db").write_bytes(b"no database" * 1000)

    ended = run(tmp_path, "stats")
    assert ended.returncode == 4
    assert ended.stderr.startswith("tfo-mcp: the recorder ")
    assert ended.stderr.count("\n") == 1


def test_a_recorder_that_was_never_begun_has_nothing_and_one_of_another_version_is_said(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    path = tmp_path / "state" / "telemetry.db"
    path.touch()
    assert told(tmp_path, "stats", "--json") == ""
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE others (x)")
        database.execute("PRAGMA user_version = 99")

    ended = run(tmp_path, "stats")
    assert (ended.returncode, ended.stderr.count("\n")) == (4, 1)
    assert "another version's (its schema is 99)" in ended.stderr


@pytest.mark.parametrize(
    "arguments",
    [("stats", "--window", "0m"), ("stats", "--window", "1y"), ("tail", "-n", "-1"), ("traces", "show", "x")],
)
def test_arguments_that_cannot_be_meant_so_are_refused(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert run(tmp_path, *arguments).returncode == 2
