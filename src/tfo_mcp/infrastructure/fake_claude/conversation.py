"""A request as the stand-in sees it: typed where it looks, open where it does not."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import msgspec

from tfo_mcp.infrastructure.fake_claude.editing import Compaction, Edited
from tfo_mcp.infrastructure.fake_claude.models import Model
from tfo_mcp.infrastructure.fake_claude.prefix import Prefix
from tfo_mcp.infrastructure.fake_claude.shapes import convert


class Block(msgspec.Struct, frozen=True):
    """A content block of any type; which fields a type needs is a rule, not a shape."""

    type: str
    text: str | None = None
    id: str | None = None
    name: str | None = None
    input: dict[str, object] | None = None
    tool_use_id: str | None = None
    content: object = None
    is_error: bool | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None


class _ResultContent(msgspec.Struct):
    content: str | list[Block] | None


class Message(msgspec.Struct, frozen=True):
    """One entry of `messages`."""

    role: str
    content: str | list[Block]


class Tool(msgspec.Struct, frozen=True):
    """A tool that is offered; `type` is set for the API's own tools."""

    name: str | None = None
    type: str | None = None
    input_schema: dict[str, object] | None = None


class ToolChoice(msgspec.Struct, frozen=True):
    """How tools may be used: `auto`, `any`, `tool` or `none`."""

    type: str | None = None


class Format(msgspec.Struct, frozen=True):
    """What the answer's text is to be."""

    schema: dict[str, object] | None = None


class OutputConfig(msgspec.Struct, frozen=True):
    """How the answer is to be written."""

    format: Format | None = None


class Thinking(msgspec.Struct, frozen=True):
    """How the model may think, and whether its thoughts are shown."""

    display: str | None = None


class Request(msgspec.Struct, frozen=True):
    """The body of `POST /v1/messages`, as far as the stand-in reads it.

    `max_tokens` is None where tokens are only counted.
    """

    model: str
    messages: list[Message]
    max_tokens: int | None = None
    stream: bool = False
    system: str | list[Block] | None = None
    tools: list[Tool] = msgspec.field(default_factory=list[Tool])
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    stop_sequences: list[str] = msgspec.field(default_factory=list[str])


@dataclass(frozen=True, slots=True)
class Turn:
    """Neighbouring messages of one role; each block with its place, as in `messages.0.content.1`."""

    role: str
    blocks: tuple[tuple[str, Block], ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """A valid request for a model, its turns (mid-conversation system messages left out) and what becomes of it."""

    request: Request
    model: Model
    turns: tuple[Turn, ...]
    edited: Edited

    @property
    def compaction(self) -> Compaction | None:
        """The summary that is written before the answer."""
        return self.edited.compaction

    @property
    def prompts(self) -> tuple[Prefix, ...]:
        """What is read: by the summary, if there is to be one, and by the answer."""
        return (self.edited.prefix,) if self.compaction is None else (self.edited.prefix, self.compaction.prefix)

    @property
    def schema(self) -> dict[str, object] | None:
        """What the answer's text is to fit."""
        config = self.request.output_config
        return None if config is None or config.format is None else config.format.schema

    @property
    def first_text(self) -> str:
        """The text of the first message."""
        return _text(block for _, block in _placed(0, self.request.messages[0]))

    @property
    def last_text(self) -> str:
        """The text of the last user turn, without tool results."""
        return _text(block for _, block in self.turns[-1].blocks)

    @property
    def results(self) -> list[Block]:
        """The tool results of the last user turn."""
        return [block for _, block in self.turns[-1].blocks if block.type == "tool_result"]

    @property
    def most_output(self) -> int:
        """How many tokens the answer may have: `max_tokens`, or what the model's window leaves."""
        return min(self.request.max_tokens or 0, self.window_left)

    @property
    def shows_thinking(self) -> bool:
        """Whether thoughts are sent, or their signatures only."""
        return self.request.thinking is None or self.request.thinking.display != "omitted"

    @property
    def window_left(self) -> int:
        """Tokens of the model's window that the prompt leaves."""
        return self.model.window - self.prompts[-1].tokens


def merged(messages: Sequence[Message]) -> tuple[Turn, ...]:
    """Join neighbours of one role into turns, as the API does."""
    spoken = [(index, message) for index, message in enumerate(messages) if message.role != "system"]
    return tuple(
        Turn(role, tuple(placed for index, message in group for placed in _placed(index, message)))
        for role, group in groupby(spoken, key=lambda entry: entry[1].role)
    )


def inner_blocks(result: Block) -> list[Block]:
    """Give the blocks inside a tool result; a plain string becomes a text block, an empty one none.

    Raises `ShapeError` when the content is neither text nor a list of blocks.
    """
    content = convert({"content": result.content}, _ResultContent).content
    if isinstance(content, str):
        return [Block("text", text=content)] if content else []
    return content or []


def result_text(result: Block) -> str:
    """Give the text inside a tool result, empty if there is none."""
    return _text(inner_blocks(result))


def _placed(index: int, message: Message) -> list[tuple[str, Block]]:
    if isinstance(message.content, str):
        return [(f"messages.{index}.content.0", Block("text", text=message.content))]
    return [(f"messages.{index}.content.{number}", block) for number, block in enumerate(message.content)]


def _text(blocks: Iterable[Block]) -> str:
    return "\n".join(block.text for block in blocks if block.type == "text" and block.text)
