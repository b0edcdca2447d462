"""What people, tools and Claude said, where telemetry is to tell of it (`telemetry.capture_content`).

On an operation's own path as much of it as may be told is copied, and a little more. Everything else happens on the
pipeline's thread before anything is written anywhere: the configured secrets and what looks like one go out of it,
then what the user's own patterns match, and then it is cut to length. So no cut hides a secret's beginning from what
would have known the whole of it.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, Protocol, cast

from msgspec import structs

from tfo_mcp.infrastructure.telemetry.records import JsonValue, Record

_log = logging.getLogger("tfo_mcp.telemetry")

LONGEST_SECRET = 4096
"""Characters up to which a secret is found wherever the cut is; a private key of 4096 bits has 3300."""

MOST_WAITING = 1024
"""Records that may wait for the pipeline while contents are still captured; they are the first to go."""

MAX_DEPTH = 32
"""Levels of a content that are told."""

_MORE = "…"
"""Stands where something is left out."""

_HIDDEN = "***"

_PUNCTUATION = 4
"""Characters that JSON adds to a value, about."""


class _Cut(str):
    """The beginning of a text; its end may be a secret's beginning."""

    __slots__ = ()


def captured(content: object, length: int) -> JsonValue:
    """A copy of the beginning of `content`, from which `length` characters can be told without a secret.

    Whatever it is: a content that cannot be looked at costs nobody the operation.
    """
    try:
        return _Copy(length + LONGEST_SECRET).of(content)
    except Exception as error:  # noqa: BLE001  # a mapping may be anybody's
        return f"<{type(error).__name__}>"


class _Copy:
    """Copies a content until so many characters are used up."""

    def __init__(self, length: int) -> None:
        self._left = length

    def of(self, value: object, depth: int = 0) -> JsonValue:
        self._left -= _PUNCTUATION
        match value:
            case str():
                return self._text(value)
            case Mapping() if depth < MAX_DEPTH:
                return self._mapping(cast("Mapping[object, object]", value), depth)
            case list() | tuple() if depth < MAX_DEPTH:
                return self._list(cast("Sequence[object]", value), depth)
            case Mapping() | list() | tuple():
                return _MORE
            case _:
                return _scalar(value)

    def _text(self, text: str) -> str:
        left = max(0, self._left)
        self._left -= len(text)
        return text if len(text) <= left else _Cut(text[:left])

    def _mapping(self, mapping: Mapping[object, object], depth: int) -> dict[str, JsonValue]:
        copy: dict[str, JsonValue] = {}
        for name, value in mapping.items():
            if self._left <= 0:
                copy[_MORE] = _MORE
                break
            shown = self._text(name) if isinstance(name, str) else f"<{type(name).__name__}>"
            copy[shown] = self.of(value, depth + 1)
        return copy

    def _list(self, values: Sequence[object], depth: int) -> list[JsonValue]:
        copy: list[JsonValue] = []
        for value in values:
            if self._left <= 0:
                copy.append(_MORE)
                break
            copy.append(self.of(value, depth + 1))
        return copy


def _scalar(value: object) -> JsonValue:
    """`value` where JSON has a form for it that others read; else its type."""
    match value:
        case None | bool():
            return value
        case int() if -(2**63) <= value < 2**64:
            return value
        case float() if math.isfinite(value):
            return value
        case _:
            return f"<{type(value).__name__}>"


class _Pattern(Protocol):
    """What is used of a pattern of RE2, whose Python package ships no types."""

    def sub(self, repl: Callable[[Any], str], text: str) -> str: ...


class ContentRedaction:
    """Makes of what was captured what may be told.

    Args:
        redact: takes out of a text the configured secrets and what looks like one.
        patterns: RE2's; it needs time in proportion to a text, whatever the pattern, and lets other threads run.
        length: characters of one content's JSON.

    Raises:
        ValueError: one of `patterns` is none; a sentence.
    """

    def __init__(self, redact: Callable[[str], str], patterns: Sequence[str], length: int) -> None:
        self.length = length
        self._redact = redact
        self._patterns = [_compiled(number, pattern) for number, pattern in enumerate(patterns, 1)]

    def of(self, record: Record, *, keep: bool = True) -> Record:
        """The record with `contents` in place of what was `captured`, or with neither."""
        if record.captured is None:
            return record
        contents: dict[str, str] | None = None
        if keep:
            try:
                contents = {key: self._told(content) for key, content in record.captured.items()}
            except Exception as error:  # noqa: BLE001  # whatever it is: what may hold a secret is not told
                _log.warning("the contents of an operation cannot be redacted (%s)", type(error).__name__)
        return structs.replace(record, captured=None, contents=contents)

    def _told(self, content: JsonValue) -> str:
        text = self._by_patterns(_json(self._without_secrets(content)))
        return text if len(text) <= self.length else self._shortened(text)

    def _without_secrets(self, content: JsonValue) -> JsonValue:
        match content:
            case str():
                return self._text(content)
            case dict():
                return {self._text(name): self._without_secrets(value) for name, value in content.items()}
            case list():
                return [self._without_secrets(value) for value in content]
            case _:
                return content

    def _text(self, text: str) -> str:
        redacted = self._by_patterns(self._redact(_encodable(text)))
        if isinstance(text, _Cut):  # what is left of its end may belong to a secret that was not whole
            return redacted[: max(0, len(redacted) - LONGEST_SECRET)] + _MORE
        return redacted

    def _by_patterns(self, text: str) -> str:
        for pattern in self._patterns:
            text = pattern.sub(_hidden, text)
        return text

    def _shortened(self, text: str) -> str:
        """The beginning of what JSON says, as JSON; of what a pattern has made to be none, the beginning."""
        try:
            content = json.loads(text)
        except ValueError:
            return text[: self.length]
        room = self.length
        while len(text) > self.length and room > 0:
            room = room * self.length // len(text)
            text = _json(_marked(_Copy(room).of(content)))
        return text[: self.length]


def _compiled(number: int, pattern: str) -> _Pattern:
    re2: Any = import_module("re2")
    options = re2.Options()
    options.log_errors = False  # to stderr, which is the log's
    try:
        return cast("_Pattern", re2.compile(pattern, options))
    except re2.error as error:
        reason = error.args[0].decode("utf-8", "replace") if error.args else "it cannot be compiled"
        raise ValueError(f"telemetry.redact_patterns: number {number} is no pattern of RE2: {reason}") from None


def _hidden(match: Any) -> str:  # noqa: ANN401  # RE2's, without a type
    return _HIDDEN if match.group() else ""


def _marked(content: JsonValue) -> JsonValue:
    """With a sign at the end of each text that was cut."""
    match content:
        case _Cut():
            return content + _MORE
        case dict():
            return {_marked_text(name): _marked(value) for name, value in content.items()}
        case list():
            return [_marked(value) for value in content]
        case _:
            return content


def _marked_text(text: str) -> str:
    return text + _MORE if isinstance(text, _Cut) else text


def _json(content: JsonValue) -> str:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def _encodable(text: str) -> str:
    """Without halves of surrogate pairs, which UTF-8 has no form for."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
