"""What is written byte by byte is what protobuf's library would have written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from tfo_mcp.application.ports import AttributeValue, Carried, SpanKind, TraceContext
from tfo_mcp.domain.execution import Outcome
from tfo_mcp.infrastructure.telemetry.encode import Encoder
from tfo_mcp.infrastructure.telemetry.otlp_values import MAX_VALUE_LENGTH
from tfo_mcp.infrastructure.telemetry.records import Record
from tfo_mcp.infrastructure.telemetry.span_bytes import own_span

TIMES = st.integers(1, 2**62)
TEXTS = st.text(max_size=200)  # lone surrogates among them
VALUES = TEXTS | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.booleans()
ATTRIBUTES = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), VALUES, max_size=8)
CONTEXTS = st.builds(
    TraceContext,
    st.integers(1, 2**128 - 1),
    st.integers(1, 2**64 - 1),
    st.none() | st.builds(Carried, st.text(st.characters(codec="ascii"), max_size=200), st.just({})),
)
RECORDS = st.builds(
    Record,
    kind=st.sampled_from(get_args(SpanKind)),
    name=TEXTS,
    context=CONTEXTS,
    parent_id=st.integers(0, 2**64 - 1),
    start_ns=TIMES,
    duration_ns=TIMES,
    outcome=st.sampled_from(get_args(Outcome)),
    attributes=ATTRIBUTES,
    events=st.lists(st.tuples(TIMES, TEXTS, ATTRIBUTES), max_size=3).map(tuple),
)


def readable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def key_values(attributes: Mapping[str, AttributeValue]) -> list[KeyValue]:
    fields = {str: "string_value", bool: "bool_value", int: "int_value", float: "double_value"}
    return [
        KeyValue(key=key, value=AnyValue(**cast("Any", {fields[type(value)]: shown(value)})))
        for key, value in attributes.items()
    ]


def shown(value: AttributeValue) -> AttributeValue:
    return readable(value) if isinstance(value, str) else value


def by_the_library(record: Record) -> Span:
    context = cast("TraceContext", record.context)
    kinds = {"request": Span.SPAN_KIND_SERVER, "tool": Span.SPAN_KIND_INTERNAL, "claude": Span.SPAN_KIND_INTERNAL}
    failed = record.outcome not in {"completed", "cancelled"}
    return Span(
        trace_id=context.trace_id.to_bytes(16, "big"),
        span_id=context.span_id.to_bytes(8, "big"),
        parent_span_id=record.parent_id.to_bytes(8, "big") if record.parent_id else b"",
        trace_state="" if context.carried is None else context.carried.trace_state,
        flags=0x301 if record.kind == "request" and record.parent_id else 0x101,
        name=readable(record.name),
        kind=kinds[record.kind],
        start_time_unix_nano=record.start_ns,
        end_time_unix_nano=record.start_ns + record.duration_ns,
        attributes=key_values(record.attributes),
        events=[
            Span.Event(time_unix_nano=at, name=readable(name), attributes=key_values(attributes))
            for at, name, attributes in record.events
        ],
        status=Status(code=Status.STATUS_CODE_ERROR) if failed else None,
    )


@pytest.mark.behaviour("telemetry.serialized")
@given(RECORDS)
def test_a_span_s_bytes_are_read_as_what_was_recorded(record: Record) -> None:
    assert Span.FromString(own_span(record)) == by_the_library(record)


@pytest.mark.parametrize("length", [0, 1, 63, 64, 65, 127, 128, MAX_VALUE_LENGTH, MAX_VALUE_LENGTH + 1, 100_000])
def test_texts_of_any_length_are_cut_where_they_are_too_long(length: int) -> None:
    record = Record("tool", "n" * length, TraceContext(1, 2), 0, 3, 4, "completed", {"k" * length: "v" * length}, ())
    span = Span.FromString(own_span(record))
    kept = min(length, MAX_VALUE_LENGTH)
    assert span.name == "n" * kept
    assert span.attributes == [KeyValue(key="k" * length, value=AnyValue(string_value="v" * kept))]


@given(st.lists(RECORDS, min_size=1, max_size=20))
def test_a_request_s_bytes_are_the_resource_the_scope_and_every_span(records: list[Record]) -> None:
    resource = {"service.name": "tfo-mcp", "process.pid": 7, "long": "x" * 300}
    (parcel,) = Encoder(resource, "9.9", str).spans(records)
    assert parcel.items == len(records)
    assert ExportTraceServiceRequest.FromString(parcel.body) == ExportTraceServiceRequest(
        resource_spans=[
            ResourceSpans(
                resource=Resource(attributes=key_values(resource)),
                scope_spans=[
                    ScopeSpans(
                        scope=InstrumentationScope(name="tfo_mcp", version="9.9"),
                        spans=[by_the_library(record) for record in records],
                    )
                ],
            )
        ]
    )
