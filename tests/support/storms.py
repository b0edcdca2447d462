"""Claude as a storm meets him: he answers as he is told, wants tools of every kind, and refuses what the API would."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from support.processes import Process
from tfo_mcp.application.ports import AnswerListener, ClaudeRequest, ClaudeResponse, ModelInfo
from tfo_mcp.domain.errors import ClaudeFailure, ToolFailure
from tfo_mcp.domain.message import Block, Message, OpaqueBlock, Text, ToolUse, Usage
from tfo_mcp.domain.tool import Tool, ToolAnnotations, ToolContext, ToolMode, ToolResult

TOOLS = {
    "look": ToolAnnotations(read_only=True),
    "mark": ToolAnnotations(idempotent=True),
    "strike": ToolAnnotations(),
    "fail": ToolAnnotations(read_only=True),
}
"""Those that he may use; he also asks for one that there is not."""

ANSWERS = (
    *("text", "tools", "cut call", "thought", "pause", "refusal"),
    *("counts", "counts not", "unknown model", "broken", "broken in a call", "broken in silence"),
)
"""What he does with a request."""

_FAILURES: Mapping[str, Mapping[str, Any]] = {
    "counts": {"status": 529, "counts": True},
    "counts not": {"status": 401},
    "unknown model": {"status": 404},
    "broken": {"counts": True, "may_have_cost": True},
    "broken in a call": {"counts": True, "may_have_cost": True},
    "broken in silence": {"counts": True, "may_have_cost": True},
}


@dataclass(frozen=True)
class Answer:
    """One of `ANSWERS`, and the tools for which he asks in it."""

    kind: str
    tools: Sequence[str] = ()


@dataclass
class Api:
    """Claude, whichever process asks him.

    Attributes:
        answers: those to come; then he gives a text.
        asked: how many requests there were.
        ran: how often each tool call ran, by the number that stands in its input.
        once: the calls of the tool that must not run twice.
        never: the calls of no tool, and of messages that were cut.
    """

    answers: list[Answer] = field(default_factory=list[Answer])
    asked: int = 0
    calls: int = 0
    ran: Counter[int] = field(default_factory=Counter[int])
    once: set[int] = field(default_factory=set[int])
    never: set[int] = field(default_factory=set[int])

    def uses(self, names: Sequence[str], *, cut: bool) -> list[ToolUse]:
        """Calls that are to run, unless their message is cut."""
        made: list[ToolUse] = []
        for name in names:
            self.calls += 1
            if cut or name not in TOOLS:
                self.never.add(self.calls)
            elif name == "strike":
                self.once.add(self.calls)
            made.append(ToolUse(f"toolu_{self.calls}", name, {"call": self.calls}))
        return made

    def tools(self, process: Process) -> Sequence[Tool]:
        """Claude's tools in one process."""

        async def call(name: str, arguments: Mapping[str, Any], _context: ToolContext) -> ToolResult:
            await process.moment("tool")
            self.ran[arguments["call"]] += 1
            await process.moment("tool")
            if name == "fail":
                raise ToolFailure("it does not work")
            return ToolResult(f"{name} ran")

        return [
            Tool(
                name=name,
                title=name,
                description=name,
                input_schema={"type": "object"},
                run=partial(call, name),
                mode=ToolMode.TASK,
                annotations=annotations,
                for_claude=True,
            )
            for name, annotations in TOOLS.items()
        ]


class Line:
    """`ClaudeService` of one process."""

    def __init__(self, api: Api, process: Process) -> None:
        self._api = api
        self._process = process

    @property
    def provider(self) -> str:
        return "anthropic"

    def check_configured(self) -> None:
        """There is a key."""

    async def describe(self, model: str) -> ModelInfo | None:
        return None

    async def count_tokens(self, request: ClaudeRequest) -> int | None:
        return None

    async def create_message(self, request: ClaudeRequest, listener: AnswerListener | None = None) -> ClaudeResponse:
        check_turns(request.transcript.turns)
        assert request.transcript.turns[-1]["role"] == "user"
        assert listener is not None
        self._api.asked += 1
        number = self._api.asked  # it stands in text, usage and id, so that each is known again
        answer = self._api.answers.pop(0) if self._api.answers else Answer("text")
        failure = ClaudeFailure(answer.kind, **_FAILURES[answer.kind]) if answer.kind in _FAILURES else None
        await self._process.moment("Claude")
        if failure is not None and not answer.kind.startswith("broken"):
            raise failure
        listener.begun(request.model, Usage(number, 0, 2, 1), f"req_{number}")
        await self._process.moment("Claude")
        listener.wrote(" \n" if answer.kind == "broken in silence" else f"So {number} ")
        if answer.kind == "broken in a call":
            listener.calls("strike")
        usage = Usage(number, 5, 2, 1)
        listener.counted(usage)
        await self._process.moment("Claude")
        if failure is not None:
            raise failure
        content, stop_reason = self._message(answer, Text(f"So {number} it is."))
        message = Message("assistant", content, usage=usage, model=request.model, stop_reason=stop_reason)
        return ClaudeResponse(message=message, usage=usage, request_id=f"req_{number}")

    def _message(self, answer: Answer, said: Text) -> tuple[Sequence[Block], str]:
        match answer.kind:
            case "tools":
                return (said, *self._api.uses(answer.tools, cut=False)), "tool_use"
            case "cut call":
                return (said, *self._api.uses(answer.tools, cut=True)), "max_tokens"
            case "thought":
                return (OpaqueBlock({"type": "thinking", "thinking": "Hm", "signature": "s"}),), "max_tokens"
            case "refusal":
                return (), "refusal"
            case kind:
                return (said,), "pause_turn" if kind == "pause" else "end_turn"


def check_turns(turns: Sequence[Mapping[str, Any]]) -> None:
    """What the API asks of the turns that it is told, wherever they end."""
    assert [turn["role"] for turn in turns] == [("user", "assistant")[at % 2] for at in range(len(turns))]
    called: list[str] = []
    for turn in turns:
        content = turn["content"]
        if turn["role"] == "assistant":
            assert content[-1]["type"] != "thinking"
            called = [block["id"] for block in content if block["type"] == "tool_use"]
        else:
            assert [block.get("tool_use_id") for block in content[: len(called)]] == called
            assert all(block["type"] != "tool_result" for block in content[len(called) :])
