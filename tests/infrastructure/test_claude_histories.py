"""Whatever happens to a conversation, the next request of it is one that the API takes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from itertools import count

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.claude import FakeClaude, fake_claude
from support.sends import a_send
from support.talk import reread
from tfo_mcp.application.ports import ClaudeRequest
from tfo_mcp.domain.conversation import Conversation
from tfo_mcp.domain.conversation_record import ConversationState
from tfo_mcp.domain.errors import ClaudeFailure
from tfo_mcp.domain.message import Block, Message, OpaqueBlock, Text, ToolAnswer, ToolUse, Usage
from tfo_mcp.domain.transcript import Transcript
from tfo_mcp.domain.turn import Arrived, TurnState
from tfo_mcp.infrastructure.claude import AnthropicClaude
from tfo_mcp.infrastructure.fake_claude.thoughts import seal

MODEL = "claude-test-1"
NEVER = 1_000_000
"""Failures until a conversation closes."""

said = st.text(min_size=1, max_size=20).filter(lambda text: text.strip() != "")
anything = st.text(max_size=20)


def thought(text: str) -> OpaqueBlock:
    return OpaqueBlock({"type": "thinking", "thinking": text, "signature": seal(text)})


def call(arguments: dict[str, str]) -> ToolUse:
    """Its id is given when it is said: ids are never used twice."""
    return ToolUse("", "echo", arguments)


blocks = st.one_of(
    anything.map(Text),
    said.map(thought),
    st.just(OpaqueBlock({"type": "redacted_thinking", "data": "abc"})),
    st.dictionaries(anything, anything, max_size=2).map(call),
)
reasons = st.sampled_from(["end_turn", "tool_use", "max_tokens", "refusal", "pause_turn", "stop_sequence"])
answers = st.tuples(st.lists(blocks, max_size=5), reasons)
failures = st.sampled_from([400, 401, 404, 429, 500, 529, None])
cuts = st.tuples(st.one_of(failures, st.just("cancelled")), anything)
outcomes = st.one_of(answers, cuts, st.sampled_from(["killed", "timeout"]))


@dataclass
class Turn:
    """One send: what is said, how each request of it ends, and how much of each round of tool calls is answered.

    Attributes:
        continues: whether the turn before it is continued first, where that was not ended.
        outcomes: answers, with their blocks and stop reason; what went wrong, with the text that had arrived; or a
            word for what befell the server.
    """

    message: str
    continues: bool
    outcomes: list[tuple[list[Block] | int | str | None, str] | str]
    results: list[list[str]] = field(default_factory=list[list[str]])


turns = st.lists(
    st.builds(
        Turn,
        said,
        st.booleans(),
        st.lists(outcomes, min_size=1, max_size=4),
        st.lists(st.lists(anything, max_size=5), max_size=4),
    ),
    min_size=1,
    max_size=5,
)


class World:
    """A conversation as the handler drives it, each request sent to the stand-in as well."""

    def __init__(self, claude: AnthropicClaude) -> None:
        self.conversation = Conversation.create(principal="local", model=MODEL)
        self._claude = claude
        self._ids = count()

    async def play(self, turn: Turn) -> None:
        before = self.conversation.turn
        if turn.continues and before is not None and before.state is not TurnState.ENDED:
            self.conversation.resume_turn()
            for use in self.conversation.open_calls():
                self.conversation.add_tool_answer(ToolAnswer(use.id, "late"))
        else:
            self.conversation.begin_turn(a_send(turn.message))
        results = iter(turn.results)
        for outcome in turn.outcomes:
            self.conversation.request_sent()
            await self._send()
            if isinstance(outcome, str):
                return self._end(outcome)
            content, reason = outcome
            if not isinstance(content, list):
                return self._end(outcome)
            message = self._answer(content, reason)
            self.conversation.response_received(message)
            if reason == "pause_turn":
                self.conversation.go_on()
                continue
            uses = self.conversation.open_calls()
            given = next(results, list[str]())
            for use, result in zip(reversed(uses), given, strict=False):
                self.conversation.add_tool_answer(ToolAnswer(use.id, result, is_error=result == ""))
            if not uses or len(given) < len(uses):
                return None
        return None

    async def _send(self) -> None:
        transcript = self.conversation.transcript
        assert transcript.turns == Transcript(self.conversation.messages).turns
        request = ClaudeRequest(model=MODEL, max_tokens=1, system=None, transcript=transcript, tools=())
        answer = await self._claude.create_message(request)
        assert answer.usage.cache_read_tokens + answer.usage.cache_write_tokens + answer.usage.input_tokens > 0

    def _answer(self, content: list[Block], reason: str) -> Message:
        told = [
            ToolUse(f"toolu_{next(self._ids)}", block.name, block.input) if isinstance(block, ToolUse) else block
            for block in content
        ]
        return Message("assistant", told, usage=Usage(1, 1), model=MODEL, stop_reason=reason)

    def _end(self, outcome: tuple[list[Block] | int | str | None, str] | str) -> None:
        match outcome:
            case "killed":
                self.conversation = reread(self.conversation)
            case "timeout":
                self.conversation.request_cancelled()
                self.conversation.end_turn("timeout")
            case "cancelled", text:
                self.conversation.request_cancelled(Arrived(begun=True, text=text))
                self.conversation.cancel_turn()
            case int() | None as status, text:
                failure = ClaudeFailure("failed", status=status, counts=True)
                self.conversation.request_failed(
                    failure, max_failures=NEVER, arrived=Arrived(begun=text != "", text=text)
                )
            case _:
                raise AssertionError(outcome)


def service(api: FakeClaude) -> AnthropicClaude:
    return AnthropicClaude(
        api_key="key",
        base_url=api.base_url,
        timeout=20,
        max_retries=0,
        default_model="claude-test-1",
        model_refresh=3600,
        tracer_provider=lambda: None,
    )


def test_whatever_cuts_cancels_kills_or_answers_a_turn_the_next_request_is_accepted() -> None:
    with fake_claude() as api, asyncio.Runner() as runner:
        claude = service(api)

        @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
        @given(turns)
        def always(played: list[Turn]) -> None:
            world = World(claude)
            for turn in played:
                runner.run(world.play(turn))
            assert world.conversation.state is not ConversationState.CLOSED

        always()
        runner.run(claude.close())
        assert {request["status"] for request in api.requests()} == {200}
