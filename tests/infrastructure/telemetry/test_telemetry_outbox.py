from __future__ import annotations

import math
import threading
import time

from tfo_mcp.infrastructure.telemetry.outbox import MAX_MESSAGE, Outbox, Parcel


def an_outbox(*, max_bytes: int = 1000, max_items: int = 10, linger: float = 0.0) -> Outbox:
    return Outbox(max_bytes=max_bytes, max_items=max_items, linger=linger)


def test_waiting_spans_are_taken_as_one_request_up_to_a_batch() -> None:
    outbox = an_outbox(max_items=5)
    for letter in b"abc":
        outbox.put(Parcel("traces", bytes([letter]), 2))
    assert outbox.take() == Parcel("traces", b"ab", 4)
    outbox.done()
    assert outbox.take() == Parcel("traces", b"c", 2)


def test_no_request_grows_beyond_what_collectors_take() -> None:
    outbox = an_outbox(max_bytes=10 * MAX_MESSAGE)
    half = b"x" * (MAX_MESSAGE // 2 + 1)
    outbox.put(Parcel("traces", half, 1))
    outbox.put(Parcel("traces", half, 1))
    assert outbox.take() == Parcel("traces", half, 1)


def test_the_oldest_spans_make_room_and_are_counted() -> None:
    outbox = an_outbox(max_bytes=10)
    assert outbox.put(Parcel("traces", b"aaaa", 1)) == []
    assert outbox.put(Parcel("traces", b"bbbb", 2)) == []
    assert outbox.put(Parcel("traces", b"cccc", 3)) == [Parcel("traces", b"aaaa", 1)]
    assert outbox.undelivered("traces") == 5
    assert outbox.take() == Parcel("traces", b"bbbbcccc", 5)


def test_what_is_given_back_is_older_than_what_came_meanwhile_and_makes_room_for_it() -> None:
    outbox = an_outbox(max_bytes=10)
    old = Parcel("traces", b"aaaa", 1)
    outbox.put(old)
    assert outbox.take() == old
    outbox.put(Parcel("traces", b"bbbb", 2))
    outbox.put(Parcel("traces", b"cccc", 3))
    assert outbox.give_back(old) == [old]
    assert outbox.undelivered("traces") == 5
    assert outbox.take() == Parcel("traces", b"bbbbcccc", 5)


def test_only_the_newest_metrics_are_kept() -> None:
    outbox = an_outbox()
    old = Parcel("metrics", b"old")
    outbox.put(old)
    assert outbox.take() == old
    outbox.put(Parcel("metrics", b"new"))
    outbox.give_back(old)
    assert outbox.take() == Parcel("metrics", b"new")


def test_metrics_that_fail_again_and_again_do_not_hold_up_spans() -> None:
    outbox = an_outbox()
    outbox.put(Parcel("metrics", b"m"))
    outbox.put(Parcel("traces", b"t", 1))
    first = Parcel("metrics", b"m")
    assert outbox.take() == first
    outbox.give_back(first)
    assert outbox.take() == Parcel("traces", b"t", 1)


def test_each_signal_has_its_turn() -> None:
    outbox = an_outbox()
    parcels = [Parcel("metrics", b"m"), Parcel("traces", b"t", 1), Parcel("logs", b"l", 1)]
    for parcel in reversed(parcels):
        outbox.put(parcel)
    taken: list[Parcel | None] = []
    for _ in range(7):
        parcel = outbox.take()
        taken.append(parcel)
        assert parcel is not None
        outbox.give_back(parcel)
    assert taken == [*parcels, *parcels, parcels[0]]


def test_log_records_are_taken_together_and_never_with_spans() -> None:
    outbox = an_outbox(linger=3600)
    for parcel in (Parcel("logs", b"a", 1), Parcel("traces", b"b", 1), Parcel("logs", b"c", 2)):
        outbox.put(parcel)
    assert (outbox.undelivered("logs"), outbox.undelivered("traces")) == (3, 1)
    outbox.close()
    assert outbox.take() == Parcel("traces", b"b", 1)
    outbox.done()
    assert outbox.take() == Parcel("logs", b"ac", 3)
    assert (outbox.undelivered("logs"), outbox.undelivered("traces")) == (3, 0)


def test_the_signal_that_has_more_waiting_makes_room() -> None:
    outbox = an_outbox(max_bytes=10)
    outbox.put(Parcel("traces", b"tttt", 1))
    outbox.put(Parcel("logs", b"lll", 1))
    assert outbox.put(Parcel("logs", b"mmm", 2)) == []
    assert outbox.put(Parcel("logs", b"n", 1)) == [Parcel("logs", b"lll", 1)]


def test_spans_linger_for_company_until_hurried() -> None:
    outbox = an_outbox(linger=3600)
    outbox.put(Parcel("traces", b"a", 1))
    outbox.put(Parcel("traces", b"b", 1))
    outbox.hurry()
    assert outbox.take() == Parcel("traces", b"ab", 2)


def test_a_full_batch_lingers_for_nobody() -> None:
    outbox = an_outbox(linger=3600, max_items=2)
    outbox.put(Parcel("traces", b"ab", 2))
    assert outbox.take() == Parcel("traces", b"ab", 2)


def test_what_is_taken_still_waits_until_it_is_done() -> None:
    outbox = an_outbox()
    outbox.put(Parcel("traces", b"a", 1))
    outbox.take()
    assert not outbox.wait_empty(0)
    assert outbox.undelivered("traces") == 1
    outbox.done()
    assert outbox.wait_empty(0)


def test_a_closed_outbox_gives_what_it_has_and_then_nothing() -> None:
    outbox = an_outbox(linger=math.inf)
    outbox.put(Parcel("traces", b"a", 1))
    outbox.close()
    assert outbox.take() == Parcel("traces", b"a", 1)
    outbox.done()
    assert outbox.take() is None


def test_at_the_end_the_counts_go_first_whoever_s_turn_it_is() -> None:
    outbox = an_outbox()
    outbox.put(Parcel("metrics", b"old"))
    assert outbox.take() == Parcel("metrics", b"old")
    outbox.put(Parcel("traces", b"t", 1))
    outbox.put(Parcel("logs", b"l", 1))
    outbox.put(Parcel("metrics", b"the last"))
    outbox.close()
    outbox.done()
    assert [outbox.take() for _ in range(3)] == [
        Parcel("metrics", b"the last"),
        Parcel("traces", b"t", 1),
        Parcel("logs", b"l", 1),
    ]


def test_a_taker_sleeps_until_something_is_put() -> None:
    outbox = an_outbox()
    taken: list[Parcel | None] = []
    taker = threading.Thread(target=lambda: taken.append(outbox.take()))
    taker.start()
    outbox.put(Parcel("traces", b"a", 1))
    taker.join(20)
    assert taken == [Parcel("traces", b"a", 1)]
    assert not outbox.wait_empty(time.monotonic())
