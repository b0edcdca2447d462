"""Context management: what of a conversation the model does not get to see, and what is written in its place.

"Compaction at a token threshold" and "Context editing" at platform.claude.com (October 2026). What stands
before the last compaction block counts no more; a request beyond a `compact_20260112` edit's trigger is first
summed up in a new one, which is a sampling of its own; `clear_tool_uses_20250919` empties old tool results.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn, cast

from tfo_mcp.infrastructure.fake_claude.errors import Rejected
from tfo_mcp.infrastructure.fake_claude.models import Model
from tfo_mcp.infrastructure.fake_claude.prefix import Prefix, prefix_of
from tfo_mcp.infrastructure.fake_claude.shapes import Fields, inner
from tfo_mcp.infrastructure.fake_claude.thoughts import seal

COMPACT = "compact_20260112"
CLEAR_TOOL_USES = "clear_tool_uses_20250919"
BETAS = {COMPACT: "compact-2026-01-12", CLEAR_TOOL_USES: "context-management-2025-06-27"}
"""The beta that each edit needs."""

EDIT_FIELDS = {
    COMPACT: {"instructions", "pause_after_compaction", "trigger", "type"},
    CLEAR_TOOL_USES: {"clear_at_least", "clear_tool_inputs", "exclude_tools", "keep", "trigger", "type"},
}
DEFAULT_TRIGGERS = {COMPACT: 150_000, CLEAR_TOOL_USES: 100_000}
LEAST_TRIGGER = 50_000
"""Tokens, of a compaction."""

DEFAULT_KEEP = 3
COMPACTION_FIELDS = {"cache_control", "content", "encrypted_content", "signature", "tool_changes", "type"}
CLEARED = "[Old tool result content cleared]"


@dataclass(frozen=True, slots=True)
class Compaction:
    """A summary that is written before the answer: its block, its length in bytes, and the prompt that it leaves."""

    block: dict[str, object]
    written: int
    prefix: Prefix


@dataclass(frozen=True, slots=True)
class Edited:
    """A request as the model sees it.

    Attributes:
        prefix: the prompt.
        original_tokens: what the prompt would have had without clearing.
        compaction: set where the prompt passes the trigger of one.
        applied: what was cleared; None where the request has no `context_management`.
    """

    prefix: Prefix
    original_tokens: int
    compaction: Compaction | None
    applied: list[dict[str, object]] | None


def edit(fields: Fields, model: Model, betas: frozenset[str]) -> Edited:
    """Do what `context_management` asks for.

    Raises `Rejected`.
    """
    edits = _edits(fields, model, betas)
    seen = {**fields, "messages": _after_compaction(fields["messages"])}
    prefix = prefix_of(seen, model)
    original, applied = prefix.tokens, list[dict[str, object]]()
    if (clearing := edits.get(CLEAR_TOOL_USES)) is not None:
        cleared = {**seen, "messages": _cleared(seen["messages"], clearing, prefix.tokens)}
        shorter = prefix_of(cleared, model)
        count = _count_cleared(cleared["messages"]) - _count_cleared(seen["messages"])
        if count and original - shorter.tokens >= inner(clearing, "clear_at_least").get("value", 0):
            seen, prefix = cleared, shorter
            tokens = {"cleared_tool_uses": count, "cleared_input_tokens": original - prefix.tokens}
            applied.append({"type": CLEAR_TOOL_USES, **tokens})
    compaction = None
    if (compacting := edits.get(COMPACT)) is not None and prefix.tokens >= _trigger(compacting, COMPACT):
        compaction = _compaction(seen, model)
    return Edited(prefix, original, compaction, applied if fields.get("context_management") is not None else None)


def check_compaction(where: str, block: Fields, betas: frozenset[str]) -> None:
    """Refuse a compaction block without its beta, or one that was changed."""
    if BETAS[COMPACT] not in betas:
        _refuse(f"{where}: Input tag 'compaction' found using 'type' does not match any of the expected tags")
    for name in block.keys() - COMPACTION_FIELDS:
        _refuse(f"{where}.compaction.{name}: Extra inputs are not permitted")
    content = block.get("content")
    if not isinstance(content, str | None):
        _refuse(f"{where}.compaction.content: Input should be a valid string")
    if content == "":
        _refuse(f"{where}.compaction.content: String should have at least 1 character")
    if content is not None and block.get("encrypted_content") != seal(content):
        _refuse(f"{where}: Invalid `encrypted_content` in `compaction` block")


def _edits(fields: Fields, model: Model, betas: frozenset[str]) -> dict[str, Fields]:
    management = fields.get("context_management")
    if management is None:
        return {}
    if not isinstance(management, dict):
        _refuse("context_management: Input should be a valid dictionary")
    if betas.isdisjoint(BETAS.values()):
        _refuse("context_management: Extra inputs are not permitted")
    asked = cast("Fields", management)
    for name in asked.keys() - {"edits"}:
        _refuse(f"context_management.{name}: Extra inputs are not permitted")
    edits: dict[str, Fields] = {}
    for index, one in enumerate(_dictionaries(asked.get("edits"))):
        where, kind = f"context_management.edits.{index}", one.get("type")
        if kind not in BETAS or BETAS[kind] not in betas:
            _refuse(f"{where}: Input tag '{kind}' found using 'type' does not match any of the expected tags")
        if kind in edits:
            _refuse(f"{where}: only one edit of the type '{kind}' is allowed")
        _check_edit(f"{where}.{kind}", kind, one, model)
        edits[kind] = one
    return edits


def _dictionaries(value: object) -> list[Fields]:
    listed = cast("list[object]", value) if isinstance(value, list) else None if value else []
    if listed is None or not all(isinstance(one, dict) for one in listed):
        _refuse("context_management.edits: Input should be a valid list of dictionaries")
    return cast("list[Fields]", listed)


def _check_edit(where: str, kind: str, one: Fields, model: Model) -> None:
    for name in one.keys() - EDIT_FIELDS[kind]:
        _refuse(f"{where}.{name}: Extra inputs are not permitted")
    for name in ("trigger", "keep", "clear_at_least"):
        if one.get(name) is not None and type(inner(one, name).get("value")) is not int:
            _refuse(f"{where}.{name}: Input should have a type and a value, a whole number")
    allowed = {None, "input_tokens"} if kind == COMPACT else {None, "input_tokens", "tool_uses"}
    if inner(one, "trigger").get("type") not in allowed:
        _refuse(f"{where}.trigger: Input tag found using 'type' does not match any of the expected tags")
    if not isinstance(one.get("exclude_tools"), list | None):
        _refuse(f"{where}.exclude_tools: Input should be a valid list")
    if kind == COMPACT and not model.compacts:
        _refuse(f"{where}: compaction is not supported by this model.")
    if kind == COMPACT and _trigger(one, kind) < LEAST_TRIGGER:
        _refuse(f"{where}.trigger.input_tokens.value: Input should be greater than or equal to {LEAST_TRIGGER}")


def _trigger(one: Fields, kind: str) -> int:
    return inner(one, "trigger").get("value", DEFAULT_TRIGGERS[kind])


def _after_compaction(messages: list[Fields]) -> list[Fields]:
    """Leave out what stands before the last compaction block that holds a summary."""
    for index in reversed(range(len(messages))):
        content = messages[index]["content"]
        if isinstance(content, str):
            continue
        blocks = cast("list[Fields]", content)
        for number in reversed(range(len(blocks))):
            if blocks[number].get("type") == "compaction" and blocks[number].get("content") is not None:
                return [{**messages[index], "content": blocks[number:]}, *messages[index + 1 :]]
    return messages


def _compaction(seen: Fields, model: Model) -> Compaction:
    count = len(seen["messages"])
    summary = f"[simulated] No model was asked. The summary of {count} message{'' if count == 1 else 's'}."
    block: dict[str, object] = {"type": "compaction", "content": summary, "encrypted_content": seal(summary)}
    left = {**seen, "messages": [{"role": "assistant", "content": [block]}]}
    return Compaction(block, len(summary.encode()), prefix_of(left, model))


def _cleared(messages: list[Fields], clearing: Fields, tokens: int) -> list[Fields]:
    """Empty the oldest tool results, all but those of the last `keep` calls, once the trigger is reached."""
    calls = {block["id"]: block.get("name") for block in _blocks(messages) if block.get("type") == "tool_use"}
    by_uses = inner(clearing, "trigger").get("type") == "tool_uses"
    if (len(calls) if by_uses else tokens) < _trigger(clearing, CLEAR_TOOL_USES):
        return messages
    keep = inner(clearing, "keep").get("value", DEFAULT_KEEP)
    excluded = clearing.get("exclude_tools") or ()
    old = {ident for ident in list(calls)[: max(0, len(calls) - keep)] if calls[ident] not in excluded}

    def emptied(block: Fields) -> Fields:
        is_old = block.get("type") == "tool_result" and block.get("tool_use_id") in old
        return {**block, "content": CLEARED} if is_old else block

    return [
        message
        if isinstance(message["content"], str)
        else {**message, "content": [emptied(block) for block in message["content"]]}
        for message in messages
    ]


def _count_cleared(messages: list[Fields]) -> int:
    return sum(block.get("content") == CLEARED for block in _blocks(messages) if block.get("type") == "tool_result")


def _blocks(messages: list[Fields]) -> Iterator[dict[str, Any]]:
    for message in messages:
        if not isinstance(message["content"], str):
            yield from message["content"]


def _refuse(message: str) -> NoReturn:
    raise Rejected(message)
