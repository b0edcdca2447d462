"""Scripts: what the stand-in answers, as data. The package's docstring has the format."""

from typing import Annotated, Literal

import msgspec
import yaml

from tfo_mcp.infrastructure.fake_claude.shapes import ShapeError, convert

Seconds = Annotated[float, msgspec.Meta(ge=0)]
StopReason = Literal[
    "end_turn",
    "max_tokens",
    "stop_sequence",
    "tool_use",
    "pause_turn",
    "refusal",
    "model_context_window_exceeded",
]


class ScriptError(ValueError):
    """A script cannot be used; the text is one sentence, with the line where it is known."""


class When(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the last user message must be like for a reply to be taken."""

    contains: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    tool_result: bool | None = None

    def __post_init__(self) -> None:
        """Refuse a condition that always holds."""
        if self.contains is None and self.tool_result is None:
            raise ValueError("`when` needs `contains` or `tool_result`")


class ToolUse(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A call that the stand-in asks for."""

    name: Annotated[str, msgspec.Meta(min_length=1)]
    input: dict[str, object] = msgspec.field(default_factory=dict[str, object])


class Reply(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One answer, or with `status` one refusal. `delay`, `delay_between` and `retry_after` are seconds."""

    when: When | None = None
    text: str | None = None
    tool_use: tuple[ToolUse, ...] = ()
    stop_reason: StopReason | None = None
    status: Annotated[int, msgspec.Meta(ge=400, le=599)] | None = None
    retry_after: Seconds | None = None
    delay: Seconds = 0
    delay_between: Seconds = 0
    times: Annotated[int, msgspec.Meta(ge=1)] | None = None

    def __post_init__(self) -> None:
        """Refuse combinations that say nothing or two things."""
        answers = bool(self.tool_use) or self.stop_reason is not None
        if self.status is None and self.text is None and not answers:
            raise ValueError("a reply needs `text`, `tool_use`, `stop_reason` or `status`")
        if self.status is not None and answers:
            raise ValueError("`status` excludes `tool_use` and `stop_reason`")
        if self.status is None and self.retry_after is not None:
            raise ValueError("`retry_after` needs `status`")


class Script(msgspec.Struct, frozen=True):
    """Replies in their order. Without any, the default behaviour answers everything."""

    replies: tuple[Reply, ...] = ()


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    replies: list[object] = msgspec.field(default_factory=list[object])


def load_script(text: str) -> Script:
    """Read a script from YAML; an empty text is an empty script.

    Raises `ScriptError`.
    """
    root, content = _parsed(text)
    if root is None:
        return Script()
    try:
        document = convert(content, _Document)
    except ShapeError as error:
        raise ScriptError(
            f"line {_line(root)}: a script is a mapping with the one key `replies`, a list: {error}"
        ) from None
    lines = _reply_lines(root) or [_line(root)] * len(document.replies)
    placed = zip(lines, document.replies, strict=True)
    return Script(tuple(_reply(number, *place) for number, place in enumerate(placed, start=1)))


def _parsed(text: str) -> tuple[yaml.Node | None, object]:
    try:
        return yaml.SafeLoader(text).get_single_node(), yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        where = "" if error.problem_mark is None else f"line {error.problem_mark.line + 1}: "
        raise ScriptError(f"{where}not YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ScriptError(f"not YAML: {str(error).splitlines()[0]}") from None


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1


def _reply_lines(root: yaml.Node) -> list[int]:
    if not isinstance(root, yaml.MappingNode):
        return []
    for key, value in reversed(root.value):
        if key.value == "replies" and isinstance(value, yaml.SequenceNode):
            return [_line(item) for item in value.value]
    return []


def _reply(number: int, line: int, item: object) -> Reply:
    try:
        return convert(item, Reply)
    except ShapeError as error:
        raise ScriptError(f"line {line}: reply {number}: {error}") from None
