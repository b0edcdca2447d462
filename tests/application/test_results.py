from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pytest

from support.tool_calls import ToolBench
from tfo_mcp.domain.tool import Tool, ToolAnnotations, ToolMode, ToolResult

CYCLE: list[object] = []
CYCLE.append(CYCLE)


def giving(result: ToolResult, mode: ToolMode = ToolMode.INLINE) -> ToolBench:
    """A bench with one tool, `odd`, that gives `result`."""
    schema: Mapping[str, Any] = {"type": "object"}
    odd = Tool(
        name="odd",
        title="odd",
        description="odd",
        input_schema=schema,
        run=lambda _arguments, _context: result,
        mode=mode,
        annotations=ToolAnnotations(read_only=True),
    )
    return ToolBench([odd])


@pytest.mark.behaviour("tools.call.fault")
@pytest.mark.parametrize(
    "structured",
    [{"x": b"bytes"}, {"x": {1: "no name"}}, {"x": ["\ud83d"]}, {"\ud83d": 1}, ["a list"], {"x": object()}],
    ids=["bytes", "number as a name", "half a surrogate pair", "half of one as a name", "no object", "an object"],
)
def test_what_json_has_no_form_for_is_the_tools_fault(structured: object) -> None:
    bench = giving(ToolResult("x", structured=cast("Mapping[str, Any]", structured)))
    result = bench.run("odd")
    assert result.is_error
    assert "not its caller's" in result.text
    assert len(bench.reports) == 1


@pytest.mark.behaviour("tools.call.result-too-large")
@pytest.mark.parametrize("mode", [ToolMode.INLINE, ToolMode.THREAD])
@pytest.mark.parametrize(
    ("text", "structured"),
    [
        ("x" * 1_000_001, None),
        ("", {"x": "y" * 1_000_000}),
        ("", {"x": [0] * 1_000_000}),
        ("", {"x" * 1_000_000: 0}),
        ("", {"x": CYCLE}),
        ("x" * 500_000, {"x": ["y" * 500_000]}),
    ],
    ids=["text", "a value", "many values", "a name", "one that holds itself", "both together"],
)
def test_a_result_that_is_too_large_is_one_sentence(
    text: str, structured: Mapping[str, Any] | None, mode: ToolMode
) -> None:
    bench = giving(ToolResult(text, structured=structured), mode)
    assert bench.run("odd") == ToolResult(
        "'odd' gave a result of more than 1000000 characters (mcp.max_result_size): ask it for less at a time",
        is_error=True,
    )
    assert bench.executed == [("odd", "failed", "result_too_large")]


def test_a_result_of_just_the_size_is_given() -> None:
    structured = {"x": ["y" * 499_000, None, True, 1, 0.5]}
    result = ToolResult("x" * 500_000, structured=structured)
    assert giving(result).run("odd") is result
