from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfo_mcp.application.ports import Carried, TraceContext
from tfo_mcp.presentation.trace_context import trace_context

PARENT = f"00-{0xA1:032x}-{0xB2:016x}-01"
IDS = (0xA1, 0xB2)


@pytest.mark.behaviour("telemetry.request.trace-context")
def test_a_trace_parent_gives_the_ids_and_nothing_else() -> None:
    assert trace_context({"traceparent": PARENT}) == TraceContext(*IDS)
    assert trace_context({"traceparent": PARENT[:-2] + "00"}) == TraceContext(*IDS)
    assert trace_context({"traceparent": f"cc{PARENT[2:]}-what comes later"}) == TraceContext(*IDS)


@pytest.mark.parametrize(
    "value",
    [
        None,
        7,
        "",
        "00",
        f"ff{PARENT[2:]}",
        f"{PARENT}-more",
        f"{PARENT} ",
        PARENT.upper().replace("0XA1", "a1"),
        f"00-{0:032x}-{0xB2:016x}-01",
        f"00-{0xA1:032x}-{0:016x}-01",
        "x" * 100_000,
    ],
)
def test_a_malformed_trace_parent_is_none(value: object) -> None:
    assert trace_context({"traceparent": value, "tracestate": "vendor=1"}) is None


@pytest.mark.parametrize("meta", [{}, {"progressToken": 7}, {"tracestate": "vendor=1"}])
def test_without_a_trace_and_without_baggage_there_is_no_context(meta: dict[str, Any]) -> None:
    assert trace_context(meta) is None


@pytest.mark.behaviour("telemetry.tracestate")
@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("vendor=1", "vendor=1"),
        (" a=1 ,\tb=2,, ", "a=1,b=2"),
        ("t61rcwkgmze@rojo=00f0 67,c/d_e*f-g=~!", "t61rcwkgmze@rojo=00f0 67,c/d_e*f-g=~!"),
        (",".join(f"v{number}=x" for number in range(32)), ",".join(f"v{number}=x" for number in range(32))),
        ("v=" + "x" * 256, "v=" + "x" * 256),
    ],
)
def test_a_valid_trace_state_is_taken(given: str, taken: str) -> None:
    assert trace_context({"traceparent": PARENT, "tracestate": given}) == TraceContext(*IDS, Carried(taken, {}))


@pytest.mark.parametrize(
    "given",
    [
        7,
        "",
        "vendor",
        "vendor=",
        "=1",
        "Vendor=1",
        "a=1,a=2",
        "a=b=c",
        "a=é",
        "a=1\n",
        "v=" + "x" * 257,
        ",".join(f"v{number}=x" for number in range(33)),
        ",".join(f"v{number}={'x' * 250}" for number in range(3)),
    ],
)
def test_a_trace_state_that_is_not_valid_or_too_long_is_dropped_whole(given: object) -> None:
    assert trace_context({"traceparent": PARENT, "tracestate": given}) == TraceContext(*IDS)


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("user=alice", {"user": "alice"}),
        (" user = al%20ice%2C%C3%A9 ; ttl=1;x , b=", {"user": "al ice,é", "b": ""}),
        ("a=1,nothing,=2,b c=3,d=\u00e9,e=5", {"a": "1", "e": "5"}),
        ("a=1,a=2", {"a": "2"}),
        (",".join(f"k{number}=v" for number in range(65)), {f"k{number}": "v" for number in range(64)}),
        ("a=" + "x" * 8190, {"a": "x" * 8190}),
    ],
)
def test_baggage_is_decoded_within_its_bounds(given: str, taken: dict[str, str]) -> None:
    assert trace_context({"traceparent": PARENT, "baggage": given}) == TraceContext(*IDS, Carried("", taken))


@pytest.mark.parametrize("given", [7, "", "nothing", "a=" + "x" * 8191])
def test_baggage_that_is_none_or_too_long_is_dropped(given: object) -> None:
    assert trace_context({"traceparent": PARENT, "baggage": given}) == TraceContext(*IDS)
    assert trace_context({"baggage": given}) is None


def test_baggage_needs_no_trace() -> None:
    assert trace_context({"baggage": "a=1"}) == TraceContext(0, 0, Carried("", {"a": "1"}))
    assert trace_context({"traceparent": "x", "tracestate": "v=1", "baggage": "a=1"}) == TraceContext(
        0, 0, Carried("", {"a": "1"})
    )


ANYTHING = st.one_of(st.none(), st.integers(), st.text(), st.lists(st.text()), st.dictionaries(st.text(), st.text()))
LIKE_A_PARENT = st.from_regex(r"[0-9a-fA-F]{2}-[0-9a-fA-Fg]{30,33}-[0-9a-f]{15,17}-[0-9a-z]{2}(-.*)?\s?")
LIKE_A_LIST = st.from_regex(r"([ \ta-cA=;@%é\x00]{0,9},?){0,9}", fullmatch=True)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "traceparent": ANYTHING | LIKE_A_PARENT | st.just(PARENT),
            "tracestate": ANYTHING | LIKE_A_LIST,
            "baggage": ANYTHING | LIKE_A_LIST,
        },
    )
)
def test_whatever_meta_holds_its_context_is_none_or_valid(meta: dict[str, Any]) -> None:
    context = trace_context(meta)
    if context is None:
        return
    assert (context.trace_id > 0) is (context.span_id > 0)
    assert context.trace_id < 1 << 128
    assert context.span_id < 1 << 64
    state = "" if context.carried is None else context.carried.trace_state
    assert (state == "" or context.trace_id > 0, len(state) <= 512, state.isascii(), state.isprintable()) == (True,) * 4
    assert context.trace_id or (context.carried is not None and context.carried.baggage)
