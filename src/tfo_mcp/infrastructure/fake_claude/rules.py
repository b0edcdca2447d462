"""What the Messages API refuses, in its words.

`check_headers` and `parse` are the two gates of a request. Each rule below is one function
that raises `Rejected`; `REQUEST_RULES` and `TURN_RULES` are the table of them.
"""

import re
from collections.abc import Mapping
from itertools import pairwise, takewhile
from typing import Any, NoReturn

import msgspec

from tfo_mcp.infrastructure.fake_claude.conversation import Asked, Block, Request, Turn, inner_blocks, merged
from tfo_mcp.infrastructure.fake_claude.editing import check_compaction, edit
from tfo_mcp.infrastructure.fake_claude.errors import Rejected
from tfo_mcp.infrastructure.fake_claude.files import check_files
from tfo_mcp.infrastructure.fake_claude.models import Model, find_model
from tfo_mcp.infrastructure.fake_claude.parameters import COUNTED_FIELDS, FIELDS, check_names, check_values
from tfo_mcp.infrastructure.fake_claude.shapes import ShapeError, convert
from tfo_mcp.infrastructure.fake_claude.thoughts import is_sealed

TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
TOOL_USE_ID = re.compile(r"[a-zA-Z0-9_-]+")
MAX_MESSAGES = 100_000
REQUIRED_FIELDS = {
    "text": ("text",),
    "thinking": ("signature", "thinking"),
    "redacted_thinking": ("data",),
    "tool_use": ("id", "name", "input"),
    "tool_result": ("tool_use_id",),
}
ALLOWED_FIELDS = {
    "text": {"cache_control", "citations", "text", "type"},
    "thinking": {"signature", "thinking", "type"},
    "redacted_thinking": {"data", "type"},
    "tool_use": {"cache_control", "caller", "id", "input", "name", "toolset_name", "type"},
    "tool_result": {"cache_control", "content", "is_error", "tool_use_id", "toolset_name", "type"},
}
OTHER_BLOCKS = frozenset(
    {
        "bash_code_execution_tool_result",
        "code_execution_tool_result",
        "container_upload",
        "document",
        "image",
        "search_result",
        "server_tool_use",
        "text_editor_code_execution_tool_result",
        "tool_search_tool_result",
        "web_fetch_tool_result",
        "web_search_tool_result",
    }
)
"""Types of blocks into which nothing here looks."""

ONLY_IN = {
    "compaction": "assistant",
    "tool_use": "assistant",
    "tool_result": "user",
    "thinking": "assistant",
    "redacted_thinking": "assistant",
}
NOTHING = Turn("", ())


def check_headers(headers: Mapping[str, str]) -> None:
    """Refuse a request without credentials (401) or without `anthropic-version` (400).

    `headers` is looked up with lower-case names. Any credential will do.
    """
    if not credential(headers):
        _refuse("x-api-key header or Authorization: Bearer is required", 401)
    if not headers.get("anthropic-version"):
        _refuse("anthropic-version: header is required")


def credential(headers: Mapping[str, str]) -> str:
    """Give the key of a request, empty if there is none."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return headers.get("x-api-key") or (token.strip() if scheme.lower() == "bearer" else "")


def betas_of(headers: Mapping[str, str]) -> frozenset[str]:
    """Give the betas that a request names in its one header for them."""
    names = (name.strip() for name in headers.get("anthropic-beta", "").split(","))
    return frozenset(name for name in names if name)


def parse(body: bytes, *, betas: frozenset[str] = frozenset(), only_counted: bool = False) -> Asked:
    """Read a request's body and refuse it as the API would: 400, or 404 for the model.

    Args:
        body: the request's.
        betas: those that it came with.
        only_counted: it came to `count_tokens`, which takes fewer fields and any length.

    Raises `Rejected`.
    """
    fields = _decoded(body)
    check_names(fields, COUNTED_FIELDS if only_counted else FIELDS, beta=bool(betas))
    try:
        request = convert(fields, Request)
    except ShapeError as error:
        _refuse(str(error))
    if request.max_tokens is None and not only_counted:
        _refuse("max_tokens: Field required")
    model = existing_model(request.model)
    if model.lifecycle == "retired":
        _refuse(f"model: {request.model}", 404)
    check_values(fields, request, model)
    for check_request in REQUEST_RULES:
        check_request(request)
    _fields_are_known(fields, betas)
    check_files(fields, model)
    turns = merged(request.messages)
    for check_turns in TURN_RULES:
        check_turns(turns)
    edited = edit(fields, model, betas)
    length = edited.prefix.tokens
    if length > model.window and not only_counted:
        _refuse(f"prompt is too long: {length} tokens > {model.window} maximum")
    return Asked(request, model, turns, edited)


def existing_model(name: str) -> Model:
    """Give the model of a name; retired ones are known too.

    Raises `Rejected` with 404.
    """
    model = find_model(name)
    if model is None:
        _refuse(f"model: {name}", 404)
    return model


def _decoded(body: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        _refuse(f"The request body is not a valid JSON object: {error}")


def _refuse(message: str, status: int = 400) -> NoReturn:
    raise Rejected(message, status)


def _fields_are_known(fields: Mapping[str, Any], betas: frozenset[str]) -> None:
    for index, message in enumerate(fields["messages"]):
        _no_others(f"messages.{index}", message, {"content", "role"})
        if isinstance(message["content"], str):
            continue
        for number, block in enumerate(message["content"]):
            where, kind = f"messages.{index}.content.{number}", block["type"]
            if kind in ALLOWED_FIELDS:
                _no_others(f"{where}.{kind}", block, ALLOWED_FIELDS[kind])
            elif kind == "compaction":
                check_compaction(where, block, betas)
            elif kind not in OTHER_BLOCKS:
                _refuse(
                    f"{where}: Input tag '{kind}' found using 'type' does not match any of the expected tags: "
                    + ", ".join(map(repr, sorted({*ALLOWED_FIELDS, *OTHER_BLOCKS})))
                )


def _no_others(where: str, value: Mapping[str, Any], allowed: set[str]) -> None:
    for name in value:
        if name not in allowed and name != "cache_control":  # of which `prefix_of` knows where it may be
            _refuse(f"{where}.{name}: Extra inputs are not permitted")


def _roles_are_in_order(request: Request) -> None:
    roles = [message.role for message in request.messages]
    for before, role in pairwise(["", *roles]):
        if role not in {"user", "assistant", "system"}:
            _refuse(f'messages: Unexpected role "{role}". Allowed roles are "user", "assistant" or "system"')
        if role == "system" and before != "user":
            _refuse('messages: a "system" message must follow a "user" message')
    if len(roles) > MAX_MESSAGES:
        _refuse(f"messages: at most {MAX_MESSAGES} messages are allowed")
    if not roles:
        _refuse("messages: at least one message is required")
    if roles[0] != "user":
        _refuse('messages: first message must use the "user" role')
    if roles[-1] == "assistant":
        _refuse("This model does not support assistant message prefill. The conversation must end with a user message.")


def _messages_have_content(request: Request) -> None:
    for index, message in enumerate(request.messages):
        if not message.content:
            _refuse(f"messages.{index}: all messages must have non-empty content")
    if isinstance(request.system, list) and any(not block.text for block in request.system):
        _refuse("system: text content blocks must be non-empty")


def _tools_are_well_formed(request: Request) -> None:
    for index, tool in enumerate(request.tools):
        if tool.type not in {None, "custom"}:
            continue
        where = f"tools.{index}.custom"
        if tool.name is None:
            _refuse(f"{where}.name: Field required")
        if not TOOL_NAME.fullmatch(tool.name):
            _refuse(f"{where}.name: String should match pattern '^{TOOL_NAME.pattern}$'")
        if tool.input_schema is None:
            _refuse(f"{where}.input_schema: Field required")
        if tool.input_schema.get("type") != "object":
            _refuse(f"{where}.input_schema.type: Input should be 'object'")
        if not tool.input_schema.keys().isdisjoint(("oneOf", "allOf", "anyOf")):
            _refuse(f"{where}.input_schema: oneOf, allOf and anyOf are not supported at the top level")


def _tool_names_are_unique(request: Request) -> None:
    names = [tool.name for tool in request.tools if tool.name is not None]
    if len(names) != len(set(names)):
        _refuse("tools: Tool names must be unique.")


def _blocks_are_complete(turns: tuple[Turn, ...]) -> None:
    for turn in turns:
        for where, block in turn.blocks:
            _check_fields(where, block)
            if ONLY_IN.get(block.type, turn.role) != turn.role:
                _refuse(f"{where}: `{block.type}` blocks can only be in `{ONLY_IN[block.type]}` messages")
            if block.type == "tool_use":
                _check_tool_use(where, block)


def _check_fields(where: str, block: Block) -> None:
    for name in REQUIRED_FIELDS.get(block.type, ()):
        if getattr(block, name) is None:
            _refuse(f"{where}.{block.type}.{name}: Field required")


def _check_tool_use(where: str, block: Block) -> None:
    if not TOOL_USE_ID.fullmatch(block.id or ""):
        _refuse(f"{where}.tool_use.id: String should match pattern '^{TOOL_USE_ID.pattern}$'")
    if not TOOL_NAME.fullmatch(block.name or ""):
        _refuse(f"{where}.tool_use.name: String should match pattern '^{TOOL_NAME.pattern}$'")


def _texts_say_something(turns: tuple[Turn, ...]) -> None:
    for turn in turns:
        for where, block in turn.blocks:
            if block.type == "text" and block.text == "":
                _refuse("messages: text content blocks must be non-empty")
            if block.type == "text" and not (block.text or "").strip():
                _refuse("messages: text content blocks must contain non-whitespace text")
            if block.type == "tool_result":
                _check_result_content(where, block)


def _check_result_content(where: str, block: Block) -> None:
    try:
        inner = inner_blocks(block)
    except ShapeError as error:
        _refuse(f"{where}.tool_result.{error}")
    if any(part.type == "text" and not part.text for part in inner):
        _refuse("messages: text content blocks must be non-empty")


def _tool_use_ids_are_unique(turns: tuple[Turn, ...]) -> None:
    seen: set[str] = set()
    for turn in turns:
        for where, block in turn.blocks:
            if block.type != "tool_use" or block.id is None:
                continue
            if block.id in seen:
                _refuse(f"{where}: `tool_use` ids must be unique")
            seen.add(block.id)


def _results_follow_their_tool_use(turns: tuple[Turn, ...]) -> None:
    for turn, after in pairwise([*turns, NOTHING]):
        answered = {block.tool_use_id for _, block in takewhile(_is_result, after.blocks)}
        for where, block in turn.blocks:
            if block.type == "tool_use" and block.id not in answered:
                _refuse(
                    f"{where}: `tool_use` ids were found without `tool_result` blocks immediately after: "
                    f"{block.id}. Each `tool_use` block must have a corresponding `tool_result` block "
                    "in the next message."
                )


def _results_have_their_tool_use(turns: tuple[Turn, ...]) -> None:
    for before, turn in pairwise([NOTHING, *turns]):
        wanted = {block.id for _, block in before.blocks if block.type == "tool_use"}
        answered: set[str | None] = set()
        for where, block in filter(_is_result, turn.blocks):
            if block.tool_use_id not in wanted:
                _refuse(
                    f"{where}: unexpected `tool_use_id` found in `tool_result` blocks: {block.tool_use_id}. "
                    "Each `tool_result` block must have a corresponding `tool_use` block "
                    "in the previous message."
                )
            if block.tool_use_id in answered:
                _refuse(
                    f"{where}: each tool_use must have a single result. "
                    f"Found multiple `tool_result` blocks with id: {block.tool_use_id}"
                )
            answered.add(block.tool_use_id)


def _is_result(placed: tuple[str, Block]) -> bool:
    return placed[1].type == "tool_result"


def _thoughts_are_unchanged(turns: tuple[Turn, ...]) -> None:
    for turn in turns:
        for where, block in turn.blocks:
            if block.type == "thinking" and not is_sealed(block.thinking or "", block.signature or ""):
                _refuse(f"{where}: Invalid `signature` in `thinking` block")


def _thoughts_lead_to_something(request: Request) -> None:
    for index, message in enumerate(request.messages):
        if message.role != "assistant" or isinstance(message.content, str) or not message.content:
            continue
        if message.content[-1].type in {"thinking", "redacted_thinking"}:
            _refuse(
                f"messages.{index}: The final block in an assistant message cannot be `{message.content[-1].type}`."
            )


REQUEST_RULES = (
    _roles_are_in_order,
    _messages_have_content,
    _tools_are_well_formed,
    _tool_names_are_unique,
    _thoughts_lead_to_something,
)

TURN_RULES = (
    _blocks_are_complete,
    _texts_say_something,
    _tool_use_ids_are_unique,
    _results_follow_their_tool_use,
    _results_have_their_tool_use,
    _thoughts_are_unchanged,
)
