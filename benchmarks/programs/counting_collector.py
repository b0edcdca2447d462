"""A collector on the loopback that only counts.

Prints its endpoint; then answers each line of input, `count` or `forget`, with one of JSON: `spans` and `calls`, the
spans of calls of tools and what the sender's counter says of them; `spans of all` operations, and `dropped`, those of
all that the sender gave up.
"""

from __future__ import annotations

import json
import sys
from collections import Counter

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tfo_mcp.infrastructure.otlp_receiver import OtlpReceiver

_SPAN = "tools/call "
"""How the name of a call's span begins."""

_TOLD = ("spans", "spans of all", "calls", "dropped")

_COUNTERS = {"mcp.tools.calls": "calls", "tfo.telemetry.spans.dropped": "dropped"}


class _Counting(OtlpReceiver):
    """Takes what the receiver takes, and keeps numbers only: it shares the processors with what is measured."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = Counter[str]()

    def add_traces(self, body: bytes) -> bytes:
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in group.scope_spans:
                self.counts["spans of all"] += len(scope.spans)
                self.counts["spans"] += sum(span.name.startswith(_SPAN) for span in scope.spans)
        return ExportTraceServiceResponse().SerializeToString()

    def add_metrics(self, body: bytes) -> bytes:
        for group in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            for scope in group.scope_metrics:
                for metric in scope.metrics:
                    if name := _COUNTERS.get(metric.name):
                        self.counts[name] = sum(
                            point.as_int or int(point.as_double) for point in metric.sum.data_points
                        )
        return ExportMetricsServiceResponse().SerializeToString()


def main() -> None:
    receiver = _Counting()
    print(receiver.start(), flush=True)
    for order in sys.stdin:
        if order.strip() == "forget":
            receiver.counts.clear()
        print(json.dumps({name: receiver.counts[name] for name in _TOLD}), flush=True)


if __name__ == "__main__":
    main()
