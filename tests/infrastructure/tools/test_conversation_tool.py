from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from support.tool_calls import ToolBench
from tfo_mcp.application.bus import Bus, Endpoint, RequestInfo
from tfo_mcp.application.commands import SendMessage
from tfo_mcp.application.conversation_handler import TurnResult
from tfo_mcp.application.structured import Output
from tfo_mcp.domain.errors import ClaudeFailure
from tfo_mcp.domain.message import Usage
from tfo_mcp.domain.price import Cost
from tfo_mcp.domain.tool import Tool, ToolResult
from tfo_mcp.infrastructure.tools.attachments import AttachmentLimits, Attachments
from tfo_mcp.infrastructure.tools.conversations import conversation_tools
from tfo_mcp.infrastructure.tools.roots import Roots

ID = "conv_0123456789abcdef0123456789abcdef"


def the_tool(*, has_key: bool = True, timeout: float = 20, roots: Sequence[Path] = ()) -> Tool:
    limits = AttachmentLimits(max_bytes=1000, max_count=2)
    (tool,) = conversation_tools(
        Attachments(Roots(roots), limits, ThreadPoolExecutor(1)),
        default_model="claude-test-1",
        has_key=has_key,
        max_message=50,
        timeout=timeout,
    )
    return tool


def turn(text: str, stop_reason: str = "end_turn") -> TurnResult:
    return TurnResult(
        conversation_id=ID,
        turn=7,
        text=text,
        model="claude-test-1",
        stop_reason=stop_reason,
        usage=Usage(1, 2, 3, 4),
        unknown_requests=6,
        tool_calls=5,
        continued=True,
    )


def called(
    answer: TurnResult | ClaudeFailure | None,
    roots: Sequence[Path] = (),
    **arguments: Any,  # noqa: ANN401  # the tool's
) -> tuple[list[SendMessage], ToolResult]:
    """What came over the bus, and the tool's result; with None nothing ever answers."""
    sent: list[SendMessage] = []
    bench = ToolBench([the_tool(timeout=20 if answer else 0.01, roots=roots)])

    async def answering(command: SendMessage, info: RequestInfo) -> TurnResult:
        sent.append(command)
        if answer is None:
            await asyncio.Event().wait()
        if isinstance(answer, TurnResult):
            return answer
        raise answer or AssertionError

    bench.handler.bus = Bus(
        {SendMessage: Endpoint(answering)},
        telemetry=bench.telemetry,
        error_code=lambda error: -32603,
        report=lambda error_id, error: None,
    )
    return sent, bench.run("claude_conversation", **arguments)


def test_every_argument_reaches_the_conversation() -> None:
    arguments: Mapping[str, Any] = {
        "message": "Hello",
        "conversation_id": ID,
        "system_prompt": "Be brief.",
        "model": "claude-test-2",
        "max_tokens": 7,
        "tools": ["echo", "read_file"],
        "idempotency_key": "key 1",
        "effort": "low",
        "thinking": True,
        "output_schema": {"type": "object"},
    }
    assert {*arguments, "files"} == set(the_tool().input_schema["properties"])
    sent, _ = called(turn("Hi"), **arguments)
    wanted: dict[str, Any] = {**arguments, "tools": ("echo", "read_file")}
    assert sent == [SendMessage(**wanted)]


def test_a_whole_number_with_a_point_reaches_claude_without_it() -> None:
    sent, _ = called(turn("Hi"), message="Hello", max_tokens=7.0)
    assert [repr(command.max_tokens) for command in sent] == ["7"]


@pytest.mark.behaviour("conversation.result", "tools.call.structured")
def test_the_result_has_the_text_with_the_id_to_continue_and_fits_its_schema() -> None:
    sent, result = called(turn("Hello, you."), message="Hello")
    assert sent == [SendMessage("Hello")]
    assert (result.text, result.is_error) == (f"Hello, you.\n\n[conversation_id: {ID}]", False)
    assert result.structured == {
        "conversation_id": ID,
        "turn": 7,
        "text": "Hello, you.",
        "model": "claude-test-1",
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 1, "output_tokens": 2, "cache_read_tokens": 3, "cache_write_tokens": 4},
        "unknown_requests": 6,
        "tool_calls": 5,
        "continued": True,
    }
    assert jsonschema_rs.is_valid(dict(the_tool().output_schema or {}), result.structured)


def test_files_are_read_before_anything_is_sent(tmp_path: Path) -> None:
    (tmp_path / "note").write_text("needle")
    sent, _ = called(turn("Hi"), [tmp_path], message="Hello", files=["note"])
    (note,) = sent[0].attachments
    assert note.to_json()["source"]["data"] == "needle"
    sent, result = called(turn("Hi"), [tmp_path], message="Hello", files=["note", "other"])
    assert (sent, result.text, result.is_error) == ([], "there is no 'other'", True)


def test_cost_and_output_are_told_where_there_are_any() -> None:
    cost = Cost(Decimal("0.1"), "EUR")
    _, result = called(replace(turn("{}"), cost=cost, output=Output({"a": None})), message="Hello")
    assert result.structured is not None
    assert result.structured["cost"] == {"amount": "0.1", "currency": "EUR"}
    assert result.structured["output"] == {"a": None}
    assert "output_problem" not in result.structured
    assert jsonschema_rs.is_valid(dict(the_tool().output_schema or {}), result.structured)
    _, result = called(replace(turn("No."), output=Output(None, "the answer is not JSON")), message="Hello")
    assert result.structured is not None
    assert result.structured["output_problem"] == "the answer is not JSON"
    assert result.structured.keys().isdisjoint({"cost", "output"})


def test_an_answer_that_is_not_complete_says_so_even_without_a_text() -> None:
    _, result = called(turn("", "max_steps"), message="Hello")
    assert result.text == f"[conversation_id: {ID}, stopped by max_steps]"


def test_a_turn_whose_time_was_over_is_a_failure_that_says_what_there_is() -> None:
    _, result = called(turn("So far", "timeout"), message="Hello")
    assert result.text == f"So far\n\n[conversation_id: {ID}, stopped by timeout]"
    assert (result.is_error, result.timed_out) == (True, True)
    assert result.structured is not None


def test_a_failure_of_claude_is_the_tools() -> None:
    _, result = called(ClaudeFailure("Claude's API rejected the key"), message="Hello")
    assert (result.text, result.is_error) == ("Claude's API rejected the key", True)


def test_a_turn_has_a_limit_of_its_own() -> None:
    _, result = called(None, message="Hello")
    assert (result.text, result.is_error) == (
        "'claude_conversation' did not finish within 0.01 s and was stopped",
        True,
    )


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({}, "message"),
        ({"message": ""}, "message"),
        ({"message": " \n\t"}, "message"),
        ({"message": "x" * 51}, "message.*50"),
        ({"message": "Hello", "max_tokens": 0}, "max_tokens"),
        ({"message": "Hello", "model": ""}, "model"),
        ({"message": "Hello", "tools": "echo"}, "tools"),
        ({"message": "Hello", "files": "a.png"}, "files"),
        ({"message": "Hello", "files": [5]}, "files/0"),
        ({"message": "Hello", "files": ["a", "b", "c"]}, "at most 2 files"),
        ({"message": "Hello", "idempotency_key": ""}, "idempotency_key"),
        ({"message": "Hello", "effort": "some"}, "effort"),
        ({"message": "Hello", "temperature": 1}, "temperature"),
    ],
)
def test_wrong_arguments_are_named_and_nothing_is_sent(arguments: dict[str, Any], complaint: str) -> None:
    sent, result = called(turn("Hi"), **arguments)
    assert result.is_error
    assert re.search(complaint, result.text)
    assert sent == []


def test_it_promises_nothing_that_it_does_not_keep_and_is_never_offered_to_claude() -> None:
    tool = the_tool()
    promises = tool.annotations
    assert (promises.read_only, promises.destructive, promises.idempotent, promises.open_world) == (
        False,
        False,
        False,
        True,
    )
    assert not tool.for_claude


def test_without_a_key_the_description_says_so() -> None:
    assert "none is configured" in the_tool(has_key=False).description
    assert "none is configured" not in the_tool().description
