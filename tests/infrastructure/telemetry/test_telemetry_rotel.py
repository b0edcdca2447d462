"""Through a real collector: rotel, which forwards over HTTP to our receiver."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

import pytest

from support.otlp import DEADLINE, receiving
from support.rotel import collector_before
from tfo_mcp.application.ports import current_operation
from tfo_mcp.infrastructure.telemetry.client import MCPTelemetryClient
from tfo_mcp.infrastructure.telemetry.options import TelemetryOptions


@pytest.mark.behaviour("telemetry.collector")
@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize("compression", [True, False])
def test_all_three_signals_pass_a_real_collector(
    protocol: Literal["grpc", "http"],
    compression: bool,  # noqa: FBT001  # a parameter
    tmp_path: Path,
) -> None:
    with receiving("http") as receiver, collector_before(receiver, protocol, tmp_path / "rotel.log") as endpoint:
        client = MCPTelemetryClient(TelemetryOptions(endpoint=endpoint, protocol=protocol, compression=compression))
        client.take_logs()
        client.start()
        request = client.span("request", "tools/call echo", attributes={"mcp.method.name": "tools/call"})
        tool = client.span("tool", "tools.execute", parent=request.context, attributes={"gen_ai.tool.name": "echo"})
        tool.end("completed")
        request.end("completed")
        within = current_operation.set(request.context)
        logging.getLogger("tfo_mcp.tests").warning("slow", extra={"seconds": 2.5})
        client.record_error("529", {"exception.type": "Overloaded"})
        current_operation.reset(within)
        assert client.flush(DEADLINE)
        client.record_rejected("parse error")
        assert client.shutdown(DEADLINE)

        assert receiver.wait_for(
            lambda: (
                len(receiver.spans()) == len(receiver.logs()) == 2 and "tfo.mcp.requests.rejected" in receiver.metrics()
            ),
            DEADLINE,
        )
        spans = {span["name"]: span for span in receiver.spans()}
        assert spans["tools.execute"]["parent_id"] == spans["tools/call echo"]["span_id"]
        assert spans["tools.execute"]["trace_id"] == spans["tools/call echo"]["trace_id"]
        assert spans["tools/call echo"]["kind"] == "SERVER"
        slow, error = receiver.logs()
        assert (slow["level"], slow["body"], slow["attributes"]["seconds"]) == ("WARNING", "slow", 2.5)
        assert (error["level"], error["attributes"]) == (
            "ERROR",
            {"error.type": "529", "exception.type": "Overloaded"},
        )
        for record in (slow, error):
            assert record["trace_id"] == spans["tools/call echo"]["trace_id"]
            assert record["span_id"] == spans["tools/call echo"]["span_id"]
            assert record["resource"] == spans["tools/call echo"]["resource"]
        completed = {"gen_ai.tool.name": "echo", "outcome": "completed"}
        metrics = receiver.metrics()
        assert metrics["mcp.tools.calls"] == [{"attributes": completed, "value": 1}]
        assert metrics["tfo.mcp.requests.rejected"] == [{"attributes": {"reason": "parse error"}, "value": 1}]
        assert [point.get("count") for point in metrics["mcp.tools.duration"]] == [1]
        assert metrics["tfo.telemetry.spans.exported"] == [{"attributes": {}, "value": 2}]
        assert metrics["tfo.telemetry.logs.exported"] == [{"attributes": {}, "value": 2}]
