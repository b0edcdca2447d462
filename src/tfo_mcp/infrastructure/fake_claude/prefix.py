"""A request's prompt as the prompt cache sees it: a row of blocks, tools first, then system, then messages.

What counts, and what invalidates what, is "Prompt caching" at platform.claude.com (October 2026): a cache
entry stands for everything from the beginning up to a block that bears `cache_control`.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NoReturn, cast, get_args

import msgspec

from tfo_mcp.infrastructure.fake_claude.errors import Rejected
from tfo_mcp.infrastructure.fake_claude.files import counted_size
from tfo_mcp.infrastructure.fake_claude.models import Model
from tfo_mcp.infrastructure.fake_claude.shapes import Fields, inner, tokens

Ttl = Literal["5m", "1h"]

MAX_BREAKPOINTS = 4
NOT_CACHEABLE = frozenset({"thinking", "redacted_thinking"})
_SEPARATOR = b"\0"


@dataclass(frozen=True, slots=True)
class Part:
    """One block. `written` is what is compared, `size` the bytes that are counted, `ttl` the breakpoint on it."""

    level: Literal["tools", "system", "messages"]
    role: str
    kind: str
    written: bytes
    size: int
    ttl: Ttl | None = None


@dataclass(frozen=True, slots=True)
class Prefix:
    """The prompt block by block.

    Attributes:
        digests: of everything up to and including each block, the model and the settings that it is rendered with.
        lengths: tokens up to and including each block.
        kinds: the type of each block.
        breakpoints: (block, lifetime) in order; those below the model's least length are left out.
    """

    digests: tuple[bytes, ...]
    lengths: tuple[int, ...]
    kinds: tuple[str, ...]
    breakpoints: tuple[tuple[int, Ttl], ...]

    @property
    def tokens(self) -> int:
        """The whole prompt."""
        return self.lengths[-1]


def prefix_of(fields: Fields, model: Model) -> Prefix:
    """Take a well-formed request apart.

    Raises `Rejected` for breakpoints that the API refuses.
    """
    parts = _with_automatic(list(_parts(fields, model)), fields)
    _breakpoints_are_in_order(parts)
    digests: list[bytes] = []
    lengths: list[int] = []
    size, above = 0, ""
    digest = hashlib.sha256(model.id.encode())
    settings = _settings(fields, model, parts)
    for part in parts:
        if part.level != above:
            digest.update(_SEPARATOR + msgspec.json.encode([part.level, *settings[part.level]]))
            above = part.level
        digest.update(_SEPARATOR + part.role.encode() + _SEPARATOR + part.written)
        size += part.size
        digests.append(digest.digest())
        lengths.append(tokens(size))
    return Prefix(
        tuple(digests),
        tuple(lengths),
        tuple(part.kind for part in parts),
        tuple(_breakpoints(parts, lengths, model.minimum)),
    )


def _breakpoints(parts: Sequence[Part], lengths: Sequence[int], minimum: int) -> Iterator[tuple[int, Ttl]]:
    for index, part in enumerate(parts):
        if part.ttl is not None and lengths[index] >= minimum:
            yield index, part.ttl


def _settings(fields: Fields, model: Model, parts: Sequence[Part]) -> dict[str, list[object]]:
    """What is rendered into the prompt at the beginning of each level, beside its blocks."""
    effort = inner(fields, "output_config").get("effort") or model.default_effort
    has_images = any(b'"type":"image"' in part.written for part in parts)
    return {
        "tools": [],
        "system": [fields.get("speed") or "standard"],
        "messages": [fields.get("tool_choice"), fields.get("thinking"), effort, has_images],
    }


def _parts(fields: Fields, model: Model) -> Iterator[Part]:
    for index, tool in enumerate(fields.get("tools") or ()):
        yield _part(model, "tools", "", tool, f"tools.{index}")
    for index, block in enumerate(_blocks(fields.get("system") or ())):
        yield _part(model, "system", "", block, f"system.{index}")
    for index, message in enumerate(fields["messages"]):
        for number, block in enumerate(_blocks(message["content"])):
            yield _part(model, "messages", message["role"], block, f"messages.{index}.content.{number}")


def _blocks(content: str | Iterable[Fields]) -> Iterable[Fields]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _part(model: Model, level: Literal["tools", "system", "messages"], role: str, block: Fields, where: str) -> Part:
    marks: list[Ttl | None] = [_ttl(block, where)]
    bare = _without_mark(block)
    kind = block.get("type") or "custom"
    if kind == "tool_result" and isinstance(block.get("content"), list):
        # A mark inside a block is one on the block: there is nothing smaller to be cached.
        inside = cast("list[Fields]", block["content"])
        marks.extend(_ttl(part, where) for part in inside)
        bare["content"] = [_without_mark(part) for part in inside]
    ttl: Ttl | None = next((mark for mark in marks if mark is not None), None)
    if ttl is not None and kind in NOT_CACHEABLE:
        _refuse(f"{where}.{kind}.cache_control: Extra inputs are not permitted")
    # In one order of the block's own fields, which the API knows; what is inside them counts as it stands.
    written = msgspec.json.encode(dict(sorted(bare.items())))
    return Part(level, role, kind, written, counted_size(bare, len(written), model), ttl)


def _without_mark(block: Fields) -> dict[str, Any]:
    return {name: value for name, value in block.items() if name != "cache_control"}


def _ttl(block: Fields, where: str) -> Ttl | None:
    mark = block.get("cache_control")
    if mark is None:
        return None
    where = f"{where}.cache_control" if where else "cache_control"
    if not isinstance(mark, dict):
        _refuse(f"{where}: Input should be a valid dictionary")
    control = cast("Fields", mark)
    if control.get("type") != "ephemeral":
        _refuse(f"{where}.type: Input should be 'ephemeral'")
    if extra := control.keys() - {"type", "ttl"}:
        _refuse(f"{where}.{min(extra)}: Extra inputs are not permitted")
    ttl = control.get("ttl", "5m")
    if ttl not in get_args(Ttl):
        _refuse(f"{where}.ttl: Input should be '5m' or '1h'")
    return cast("Ttl", ttl)


def _with_automatic(parts: list[Part], fields: Fields) -> list[Part]:
    """Put the top level's mark on the last block that can bear it."""
    ttl = _ttl(fields, "")
    marked = sum(part.ttl is not None for part in parts)
    last = next((index for index in reversed(range(len(parts))) if parts[index].kind not in NOT_CACHEABLE), None)
    if ttl is not None and last is not None:
        if parts[last].ttl not in {None, ttl}:
            _refuse("cache_control: the last block has a cache_control with another ttl")
        marked += parts[last].ttl is None
        parts[last] = replace(parts[last], ttl=ttl)
    if marked > MAX_BREAKPOINTS:
        _refuse(f"A maximum of {MAX_BREAKPOINTS} blocks with cache_control may be provided. Found {marked}.")
    return parts


def _breakpoints_are_in_order(parts: list[Part]) -> None:
    short = False
    for part in parts:
        if short and part.ttl == "1h":
            _refuse(
                f"{part.level}: a ttl='1h' cache_control block must not come after a ttl='5m' cache_control block. "
                "Note that blocks are processed in the following order: `tools`, `system`, `messages`."
            )
        short = short or part.ttl == "5m"


def _refuse(message: str) -> NoReturn:
    raise Rejected(message)
