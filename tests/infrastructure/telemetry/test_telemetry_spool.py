from __future__ import annotations

import logging
import math
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from pathlib import Path
from queue import Queue
from shutil import rmtree
from typing import Any

import pytest

from tfo_mcp.infrastructure.telemetry import spool as spool_module
from tfo_mcp.infrastructure.telemetry.spool import MAX_MESSAGE, Lost, Spool, SpoolLimits
from tfo_mcp.infrastructure.telemetry.spool_file import Parcel, SpoolFile

DEADLINE = 20.0


@contextmanager
def a_spool(path: Path | None = None, *, source: str = "me", **limits: Any) -> Generator[Spool]:  # noqa: ANN401  # their fields
    given: dict[str, Any] = {
        "max_bytes": 100_000,
        "max_age": 3600.0,
        "max_dead_bytes": 1000,
        "max_items": 10,
        "linger": 0.0,
    }
    spool = Spool(SpoolFile(path, source, "process"), SpoolLimits(**{**given, **limits}))
    try:
        yield spool
    finally:
        spool.release()


def put(spool: Spool, *parcels: Parcel) -> list[Lost]:
    return list(spool.put(parcels))


def traces(letter: str, items: int = 1) -> Parcel:
    return Parcel("traces", letter.encode(), items)


def taken(spool: Spool) -> Parcel:
    parcel = spool.take()
    assert parcel is not None
    return parcel


def told(parcel: Parcel | None) -> tuple[str, bytes, int] | None:
    return None if parcel is None else (parcel.signal, parcel.body, parcel.items)


def waiting(spool: Spool) -> dict[str, int]:
    contents = spool.contents()
    assert contents is not None
    return contents.items


# --- what goes out together, and when ---


def test_waiting_spans_are_taken_as_one_request_up_to_a_batch() -> None:
    with a_spool(max_items=5) as spool:
        put(spool, traces("a", 2), traces("b", 2), traces("c", 2))
        first = taken(spool)
        assert told(first) == ("traces", b"ab", 4)
        spool.accepted(first)
        assert told(spool.take()) == ("traces", b"c", 2)


def test_no_request_grows_beyond_what_collectors_take() -> None:
    with a_spool(max_bytes=100 * MAX_MESSAGE) as spool:
        half = b"x" * (MAX_MESSAGE // 2 + 1)
        put(spool, Parcel("traces", half, 1), Parcel("traces", half, 1))
        assert told(spool.take()) == ("traces", half, 1)


def test_only_a_process_s_newest_metrics_are_kept() -> None:
    with a_spool() as spool:
        put(spool, Parcel("metrics", b"oldest"), Parcel("metrics", b"old"))
        old = taken(spool)
        assert told(old) == ("metrics", b"old", 0)
        put(spool, Parcel("metrics", b"new"))
        spool.failed(old)
        assert told(spool.take()) == ("metrics", b"new", 0)


def test_metrics_that_fail_again_and_again_do_not_hold_up_spans() -> None:
    with a_spool() as spool:
        put(spool, Parcel("metrics", b"m"), traces("t"))
        first = taken(spool)
        assert first.signal == "metrics"
        spool.failed(first)
        assert told(spool.take()) == ("traces", b"t", 1)


def test_each_signal_has_its_turn() -> None:
    with a_spool() as spool:
        put(spool, Parcel("logs", b"l", 1), traces("t"), Parcel("metrics", b"m"))
        signals: list[str] = []
        for _ in range(7):
            parcel = taken(spool)
            signals.append(parcel.signal)
            spool.failed(parcel)
        assert signals == ["metrics", "traces", "logs"] * 2 + ["metrics"]


def test_what_fails_is_tried_again_behind_the_others() -> None:
    with a_spool(max_items=1) as spool:
        put(spool, traces("a"), traces("b"), traces("c"))
        bodies: list[bytes] = []
        for _ in range(5):
            parcel = taken(spool)
            bodies.append(parcel.body)
            spool.failed(parcel)
        assert bodies == [b"a", b"b", b"c", b"a", b"b"]


def test_log_records_are_taken_together_and_never_with_spans() -> None:
    with a_spool(linger=3600) as spool:
        put(spool, Parcel("logs", b"a", 1), traces("b"), Parcel("logs", b"c", 2))
        assert waiting(spool) == {"logs": 3, "traces": 1}
        spool.close()
        first = taken(spool)
        assert told(first) == ("traces", b"b", 1)
        spool.accepted(first)
        assert told(spool.take()) == ("logs", b"ac", 3)


def test_spans_linger_for_company_until_hurried() -> None:
    with a_spool(linger=3600) as spool:
        put(spool, traces("a"))
        put(spool, traces("b"))
        spool.hurry()
        assert told(spool.take()) == ("traces", b"ab", 2)


def test_a_full_batch_lingers_for_nobody() -> None:
    with a_spool(linger=3600, max_items=2) as spool:
        put(spool, traces("ab", 2))
        assert told(spool.take()) == ("traces", b"ab", 2)


class WatchedFile(SpoolFile):
    """Tells of each look that the sender takes before it sleeps."""

    looks: Queue[None]

    def may_send(self) -> bool:
        self.looks.put(None)
        return super().may_send()


@pytest.mark.parametrize(("linger", "puts"), [(3600.0, 2), (0.0, 1)])
def test_whoever_waits_is_woken_as_soon_as_there_is_something_to_take(
    monkeypatch: pytest.MonkeyPatch, linger: float, puts: int
) -> None:
    """With a long linger the first that is put is looked at and left, and the second makes the batch full."""
    monkeypatch.setattr(spool_module, "_LOOK_AGAIN", 10 * DEADLINE)
    file = WatchedFile(None, "me", "process")
    file.looks = Queue[None]()
    limits = SpoolLimits(
        max_bytes=1000, max_age=3600, max_dead_bytes=0, max_items=puts if linger else 10, linger=linger
    )
    spool, arrived = Spool(file, limits), Queue[Parcel | None]()
    threading.Thread(target=lambda: arrived.put(spool.take()), daemon=True).start()
    for _ in range(puts):
        file.looks.get(timeout=DEADLINE)  # and it sleeps before the spool can be used
        put(spool, traces("a"))
    assert told(arrived.get(timeout=DEADLINE)) == ("traces", b"a" * puts, puts)
    spool.release()


def test_what_is_taken_still_waits_until_it_is_accepted() -> None:
    with a_spool() as spool:
        put(spool, traces("a"))
        parcel = taken(spool)
        assert not spool.wait_empty(0)
        assert waiting(spool) == {"traces": 1}
        spool.accepted(parcel)
        assert spool.wait_empty(0)
        assert waiting(spool) == {}


def test_a_closed_spool_gives_what_it_has_and_then_nothing() -> None:
    with a_spool(linger=math.inf) as spool:
        put(spool, traces("a"))
        spool.close()
        parcel = taken(spool)
        spool.accepted(parcel)
        assert spool.take() is None


def test_at_the_end_the_counts_go_first_whoever_s_turn_it_is() -> None:
    with a_spool() as spool:
        put(spool, Parcel("metrics", b"old"))
        spool.accepted(taken(spool))
        put(spool, traces("t"), Parcel("logs", b"l", 1), Parcel("metrics", b"the last"))
        spool.close()
        assert told(spool.take()) == ("metrics", b"the last", 0)


def test_a_taker_sleeps_until_something_is_put() -> None:
    with a_spool() as spool:
        found: list[Parcel | None] = []
        taker = threading.Thread(target=lambda: found.append(spool.take()))
        taker.start()
        put(spool, traces("a"))
        taker.join(DEADLINE)
        assert [told(parcel) for parcel in found] == [("traces", b"a", 1)]


# --- limits ---


def test_the_oldest_make_room_and_are_counted() -> None:
    with a_spool(max_bytes=1600) as spool:
        lost = [lost for number in range(20) for lost in put(spool, Parcel("traces", b"x" * 100, number + 1))]
        assert lost == [Lost("traces", number + 1, "evicted") for number in range(len(lost))]
        assert 4 <= len(lost) <= 6
        assert sum(waiting(spool).values()) + sum(each.items for each in lost) == 210


def test_a_flood_of_one_signal_costs_no_other() -> None:
    with a_spool(max_bytes=1600) as spool:
        put(spool, traces("t"))
        for _ in range(20):
            assert {lost.signal for lost in put(spool, Parcel("logs", b"x" * 100, 1))} <= {"logs"}
        assert waiting(spool)["traces"] == 1


def test_what_is_being_sent_makes_no_room() -> None:
    with a_spool(max_bytes=1600, max_items=1) as spool:
        put(spool, Parcel("traces", b"x" * 1500, 1))
        first = taken(spool)
        assert put(spool, Parcel("traces", b"y" * 1500, 1)) == []
        spool.failed(first)
        assert put(spool, Parcel("traces", b"z" * 100, 1)) == [Lost("traces", 1, "evicted")]


def test_what_is_too_old_is_given_up_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    with a_spool(path) as spool:
        put(spool, traces("old", 3), Parcel("metrics", b"old"))
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE parcels SET created_at = created_at - 4000")
    with a_spool(path, source="another") as spool:
        assert put(spool, traces("new")) == [Lost("traces", 3, "evicted")]
        assert told(spool.take()) == ("traces", b"new", 1)


# --- what the collector will not have ---


def test_of_what_is_refused_each_part_is_tried_alone_and_the_bad_one_is_kept_apart(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    with a_spool(path) as spool:
        put(spool, traces("a", 2), traces("bad", 3), traces("c", 4))
        assert spool.refused(taken(spool), "400", "odd") is None
        delivered: list[bytes] = []
        for _ in range(3):
            parcel = taken(spool)
            if parcel.body == b"bad":
                assert spool.refused(parcel, "400", "odd") == Lost("traces", 3, "refused")
            else:
                spool.accepted(parcel)
                delivered.append(parcel.body)
        assert delivered == [b"a", b"c"]
        contents = spool.contents()
        assert contents is not None
        assert (contents.items, contents.dead) == ({}, 3)
    file = SpoolFile(path, "later", "process")
    assert file.replay() == 1
    file.close()
    with a_spool(path) as spool:
        assert told(spool.take()) == ("traces", b"bad", 3)


def test_of_what_was_refused_the_newest_is_kept() -> None:
    with a_spool(max_dead_bytes=25) as spool:
        for letter in "abc":
            put(spool, Parcel("traces", letter.encode() * 10, 1))
            spool.refused(taken(spool), "413", "")
        contents = spool.contents()
        assert contents is not None
        assert contents.dead == 2


# --- what outlives what ---


def test_what_was_committed_is_there_for_the_next_process(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    script = f"""
import os, signal
from pathlib import Path
from tfo_mcp.infrastructure.telemetry.spool import Spool, SpoolLimits
from tfo_mcp.infrastructure.telemetry.spool_file import Parcel, SpoolFile
limits = SpoolLimits(max_bytes=10**6, max_age=3600, max_dead_bytes=0, max_items=10, linger=0)
spool = Spool(SpoolFile(Path({str(path)!r}), "killed", "process"), limits)
spool.put([Parcel("traces", b"a", 1), Parcel("metrics", b"m")])
assert spool.take().body == b"m"
os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", script], timeout=DEADLINE, check=False)
    assert ended.returncode == -signal.SIGKILL
    with a_spool(path, source="next") as spool:
        put(spool, Parcel("metrics", b"n"), traces("b"))
        found: list[tuple[str, bytes, int] | None] = []
        for _ in range(3):
            parcel = taken(spool)
            found.append(told(parcel))
            spool.accepted(parcel)
        assert found == [("metrics", b"m", 0), ("traces", b"ab", 2), ("metrics", b"n", 0)]
        assert waiting(spool) == {}


def test_one_process_sends_for_all_and_another_when_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    with a_spool(path, source="two") as two:
        with a_spool(path, source="one") as one:
            put(one, traces("a"))
            assert told(one.take()) == ("traces", b"a", 1)
            put(two, traces("b"))
            two.close()
            assert two.take() is None  # the other one sends
            assert not two.wait_empty(time.monotonic())
        assert told(two.take()) == ("traces", b"b", 1)


def test_nobody_but_the_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "state" / "spool.db"
    with a_spool(path) as spool:
        put(spool, traces("a"))
        modes = {each.name: each.stat().st_mode & 0o777 for each in path.parent.iterdir()}
    assert set(modes.values()) == {0o600}, modes
    assert path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("content", [b"", b"this is no database, and never was one " * 100])
def test_a_damaged_file_is_moved_aside_and_said_so(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "spool.db"
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING, "tfo_mcp"), a_spool(path) as spool:
        put(spool, traces("a"))
        assert told(spool.take()) == ("traces", b"a", 1)
    aside = list(tmp_path.glob("spool.db.damaged-*"))
    assert [each.read_bytes() for each in aside] == ([content] if content else [])
    assert len(caplog.messages) == len(aside)


def test_a_file_that_is_damaged_in_use_is_moved_aside_and_what_is_put_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    with a_spool(path) as spool:
        put(spool, traces("lost"))
        with closing(sqlite3.connect(path, isolation_level=None)) as another:
            another.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            with path.open("r+b") as file:
                file.seek(4096)
                file.write(b"\xff" * (path.stat().st_size - 4096))
            another.execute("PRAGMA user_version = 1")  # so that nobody trusts in what he has read before
        put(spool, traces("a"))
        put(spool, traces("b"))
        assert told(spool.take()) == ("traces", b"ab", 2)
        assert list(tmp_path.glob("spool.db.damaged-*"))


def refuse(spool: Spool, parcel: Parcel) -> None:
    spool.refused(parcel, "400", "")


@pytest.mark.parametrize(("settle", "left"), [(Spool.accepted, "bc"), (refuse, "bc"), (Spool.failed, "abc")])
def test_what_was_taken_from_a_file_that_is_no_more_touches_nothing_in_the_next(
    tmp_path: Path, settle: Callable[[Spool, Parcel], None], left: str
) -> None:
    path = tmp_path / "state" / "spool.db"
    with a_spool(path) as spool:
        put(spool, traces("a"))
        first = taken(spool)
        rmtree(path.parent)
        put(spool, traces("b"))
        settle(spool, first)
        put(spool, traces("c"))
        spool.close()
        found = ""
        while (parcel := spool.take()) is not None:
            found += parcel.body.decode()
            spool.accepted(parcel)
        assert sorted(found) == list(left)


def test_what_the_disk_does_not_take_goes_out_all_the_same_and_is_written_when_it_does(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    with a_spool(path) as spool, closing(sqlite3.connect(path, isolation_level=None)) as another:
        put(spool, traces("a"))
        another.execute("BEGIN IMMEDIATE")
        assert put(spool, traces("b", 2)) == []
        assert spool.problem is not None
        assert "locked" in spool.problem
        first = taken(spool)
        assert told(first) == ("traces", b"a", 1)
        spool.accepted(first)  # which cannot be written either, and is not forgotten
        second = taken(spool)
        assert told(second) == ("traces", b"b", 2)
        spool.failed(second)
        another.execute("ROLLBACK")
        put(spool, traces("c"))
        assert spool.problem is None
        assert told(spool.take()) == ("traces", b"bc", 3)


def test_of_what_no_disk_takes_the_newest_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    with a_spool(path, max_bytes=10**9) as spool, closing(sqlite3.connect(path, isolation_level=None)) as another:
        another.execute("BEGIN IMMEDIATE")
        lost = put(spool, *[Parcel("traces", b"x" * MAX_MESSAGE, number) for number in range(1, 6)])
        assert lost == [Lost("traces", 1, "unwritten")]


def test_the_directory_of_the_spool_may_be_named_oddly(tmp_path: Path) -> None:
    folder = tmp_path / "a ?#% b"
    with a_spool(folder / "spool.db") as spool:
        put(spool, traces("a"))
    assert "spool.db" in os.listdir(folder)  # noqa: PTH208  # names, not paths
