"""What reads `telemetry.db` for who follows it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from tfo_mcp.infrastructure.telemetry.guarded_query import QueryLimits
from tfo_mcp.infrastructure.telemetry.reader import RecorderReader
from tfo_mcp.infrastructure.telemetry.recorder_file import SPAN_COLUMNS, ProcessRow, RecorderFile


def test_all_calls_of_a_file_that_has_begun_anew_are_told(tmp_path: Path) -> None:
    path = tmp_path / "telemetry.db"
    file = RecorderFile(path)
    process = ProcessRow("i", 1, "1.0", "3.11", 0.0, "{}")
    call = {
        "principal": "local",
        "trace_id": "1" * 32,
        "span_id": "1" * 16,
        "kind": "request",
        "name": "ping",
        "ended_at": time.time(),
        "duration": 0.1,
        "outcome": "completed",
        "reads_telemetry": False,
    }
    file.append(process, [tuple(call.get(column) for column in SPAN_COLUMNS)] * 2, [], {})
    file.close()

    async def follow() -> tuple[int, int]:
        reader = RecorderReader(path, QueryLimits(timeout=1.0, max_size=1000))
        last, calls = await reader.calls_after("local", 40, 100)  # of the file that was here before
        assert not calls
        last, calls = await reader.calls_after("local", last, 100)
        return last, len(calls)

    assert asyncio.run(follow()) == (2, 2)
