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


ErrorType = Literal[
    "invalid_request_error",
    "authentication_error",
    "billing_error",
    "permission_error",
    "not_found_error",
    "request_too_large",
    "rate_limit_error",
    "api_error",
    "timeout_error",
    "overloaded_error",
]
ErrorCode = Annotated[str, msgspec.Meta(min_length=1)]
HeaderName = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9-]+$")]
HeaderValue = Annotated[str, msgspec.Meta(pattern=r"^[ -~]*$")] | bool | int | float


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


class Cut(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where an answer breaks off: after so many server-sent events, or after so many bytes of the body.

    `clean` ends the body as if it were complete; otherwise the connection is closed within it.
    """

    events: Annotated[int, msgspec.Meta(ge=0)] | None = None
    bytes: Annotated[int, msgspec.Meta(ge=0)] | None = None
    clean: bool = False

    def __post_init__(self) -> None:
        """Refuse a cut that is nowhere or in two places."""
        if (self.events is None) == (self.bytes is None):
            raise ValueError("`cut` needs either `events` or `bytes`")


class StreamError(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An `error` event in a stream that has begun, in place of what would follow `after_events`."""

    type: ErrorType = "overloaded_error"
    text: str | None = None
    error_code: ErrorCode | None = None
    after_events: Annotated[int, msgspec.Meta(ge=1)] | None = None


class Reply(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One answer, refusal or fault. `delay`, `delay_between` and `retry_after` are seconds."""

    when: When | None = None
    times: Annotated[int, msgspec.Meta(ge=1)] | None = None
    delay: Seconds = 0
    delay_between: Seconds = 0
    headers: dict[HeaderName, HeaderValue] = msgspec.field(default_factory=dict[str, HeaderValue])
    # An answer.
    text: str | None = None
    thinking: str | None = None
    tool_use: tuple[ToolUse, ...] = ()
    stop_reason: StopReason | None = None
    cut: Cut | None = None
    stream_error: StreamError | None = None
    # A refusal.
    status: Annotated[int, msgspec.Meta(ge=400, le=599)] | None = None
    error_type: ErrorType | None = None
    error_code: ErrorCode | None = None
    retry_after: Seconds | None = None
    # What the API would never say.
    raw: str | None = None
    content_type: Annotated[str, msgspec.Meta(pattern=r"^[ -~]+$")] | None = None
    fault: Literal["garbage", "hang_up", "silence"] | None = None

    def __post_init__(self) -> None:
        """Refuse combinations that say nothing or two things."""
        answers = self.text is not None or self._answers_otherwise
        if not answers and self.status is None and self.raw is None and self.fault is None:
            raise ValueError(
                "a reply needs `text`, `thinking`, `tool_use`, `stop_reason`, `stream_error`, `status`, `raw` "
                "or `fault`"
            )
        if self.status is not None and self._answers_otherwise:
            raise ValueError("`status` excludes `thinking`, `tool_use`, `stop_reason` and `stream_error`")
        if self.status is None and (self.retry_after is not None or self.error_type or self.error_code):
            raise ValueError("`retry_after`, `error_type` and `error_code` need `status`")
        if self.raw is None and self.content_type is not None:
            raise ValueError("`content_type` needs `raw`")
        if self.raw is not None and (answers or self.fault is not None or self.error_type or self.error_code):
            raise ValueError("`raw` excludes what would be written otherwise")
        if self.fault is not None and (answers or self.status is not None or self.cut is not None):
            raise ValueError("`fault` excludes any answer or refusal")
        if self.cut is not None and self.stream_error is not None:
            raise ValueError("`cut` excludes `stream_error`")

    @property
    def _answers_otherwise(self) -> bool:
        stops = self.stop_reason is not None or self.stream_error is not None
        return bool(self.tool_use) or self.thinking is not None or stops


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
