"""Follow `tools/call {"name": "echo"}` from the byte to the answer, as data."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import tfo_mcp
from differential.ours import HELLO, InProcess

if TYPE_CHECKING:
    from types import FrameType

SOURCE = Path(tfo_mcp.__file__).parent

CALL = b'{"jsonrpc":"2.0","id":"call","method":"tools/call","params":{"name":"echo","arguments":{"message":"hello"}}}'

WALK: Sequence[tuple[str, str, str]] = (
    ("presentation/transport/framing.py", "LineFramer.feed", "bytes → a line"),
    ("presentation/transport/parser.py", "parse", "a line → a request: id, method, params"),
    ("presentation/sdk_door.py", "SdkDoor._answer", "a request → params that fit the method in its revision"),
    ("presentation/routes.py", "<lambda>", "params → the command CallTool"),
    ("application/tool_handler.py", "ToolHandler.call", "the command → the tool and arguments that fit its schema"),
    ("infrastructure/tools/echo.py", "_echo", "arguments → a ToolResult"),
    ("presentation/wire.py", "tool_result", "a ToolResult → a CallToolResult"),
    ("presentation/connection.py", "Connection._encode", "a CallToolResult → a line of JSON under the request's id"),
)
"""What changes the value, in order: file, function, and what it makes of what.

`transport/streams.py` is given the bytes before and writes the line after them.
"""

LEAVE_IT_AS_IT_IS: Mapping[str, str] = {
    "application/bus.py": "records, guards, and hands on what it was given",
    "application/results.py": "says whether the result can be sent",
    "domain/execution.py": "the call's state",
    "domain/session.py": "the session's state, and how many requests it has under way",
    "domain/state_machine.py": "both states",
    "domain/tool.py": "the table that the tool is found in",
    "infrastructure/events.py": "hands ToolExecuted to its subscribers",
    "infrastructure/schemas.py": "says whether the arguments fit",
    "infrastructure/telemetry/client.py": "measures",
    "infrastructure/telemetry/span.py": "measures",
    "presentation/trace_context.py": "finds that the client has sent no trace",
}
"""The other files that take part, and what they do meanwhile."""


def functions_that_take_part() -> Sequence[tuple[str, str]]:
    """Files and functions of ours that run for one call, in the order in which they are first entered."""
    entered: dict[tuple[str, str], None] = {}

    def note(frame: FrameType, event: str, argument: object) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(SOURCE):
            entered[path.relative_to(SOURCE).as_posix(), frame.f_code.co_qualname] = None

    async def call() -> None:
        ours = InProcess()
        await ours.exchange((HELLO, CALL), 2)  # the first call compiles the schema
        sys.setprofile(note)
        try:
            [answer] = await ours.exchange((CALL,), 1)
        finally:
            sys.setprofile(None)
        assert answer["result"]["structuredContent"] == {"message": "hello"}

    asyncio.run(call())
    return list(entered)


@pytest.mark.behaviour("messages.path")
def test_eight_files_change_a_call_of_echo_on_its_way_and_no_other_takes_part_unnamed() -> None:
    entered = functions_that_take_part()
    steps = [(file, function) for file, function, _ in WALK]
    assert [step for step in entered if step in steps] == steps
    assert {file for file, _ in entered} == {file for file, _ in steps} | LEAVE_IT_AS_IT_IS.keys()
    assert len(steps) <= 8
