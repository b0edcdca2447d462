"""A request as the stand-in sees it: typed where it looks, open where it does not."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import msgspec

from tfo_mcp.infrastructure.fake_claude.shapes import convert

BYTES_PER_TOKEN = 3


def tokens(counted: bytes) -> int:
    """Count tokens in UTF-8: three bytes each, rounded up."""
    return -(-len(counted) // BYTES_PER_TOKEN)


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

    type: str


class Request(msgspec.Struct, frozen=True):
    """The body of `POST /v1/messages`, as far as the stand-in reads it."""

    model: str
    max_tokens: int
    messages: list[Message]
    stream: bool = False
    system: str | list[Block] | None = None
    tools: list[Tool] = msgspec.field(default_factory=list[Tool])
    tool_choice: ToolChoice | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """Neighbouring messages of one role; each block with its place, as in `messages.0.content.1`."""

    role: str
    blocks: tuple[tuple[str, Block], ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """A valid request, its turns (mid-conversation system messages left out) and its size in tokens."""

    request: Request
    turns: tuple[Turn, ...]
    input_tokens: int

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
