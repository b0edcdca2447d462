from __future__ import annotations

import json
import threading
import time
import timeit
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.otlp import DEADLINE, receiving
from tfo_mcp.application.ports import TraceContext
from tfo_mcp.infrastructure.config import ConfigurationError, Secret, Settings, TelemetrySettings
from tfo_mcp.infrastructure.redaction import Redaction
from tfo_mcp.infrastructure.telemetry.aggregate import Aggregate
from tfo_mcp.infrastructure.telemetry.client import MCPTelemetryClient
from tfo_mcp.infrastructure.telemetry.contents import LONGEST_SECRET, MOST_WAITING, ContentRedaction, captured
from tfo_mcp.infrastructure.telemetry.options import TelemetryOptions, telemetry_options
from tfo_mcp.infrastructure.telemetry.records import JsonValue, Record
from tfo_mcp.infrastructure.telemetry.ring import Ring
from tfo_mcp.infrastructure.telemetry.span import CapturingSpan, RecordingSpan

LENGTH = 4096
KEY = "tfs_" + "k" * 40


def told(content: object, *patterns: str, length: int = LENGTH, secret: str = KEY) -> str:
    """What telemetry tells of `content` in the end."""
    settings = Settings(telemetry=TelemetrySettings(api_key_secret=Secret(secret)))
    return redacted(captured(content, length), ContentRedaction(Redaction(settings), patterns, length))


def redacted(content: JsonValue, redaction: ContentRedaction) -> str:
    record = Record("tool", "name", TraceContext(1, 2), 0, 0, 0, "completed", {}, captured={"key": content})
    record = redaction.of(record)
    assert record.captured is None
    assert record.contents is not None
    return record.contents["key"]


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.behaviour("contents.captured")
@given(json_values)
def test_what_is_short_and_harmless_is_told_as_it_is(content: Any) -> None:  # noqa: ANN401  # JSON
    text = json.dumps(content, ensure_ascii=False).encode("utf-8", "replace").decode()
    if len(text) * 4 < LENGTH:
        assert json.loads(told(content)) == json.loads(text)


@pytest.mark.behaviour("contents.bounded")
@given(json_values, st.integers(64, 200))
def test_whatever_it_is_it_is_json_within_the_length(content: Any, length: int) -> None:  # noqa: ANN401  # JSON
    text = told([content] * 20, length=length)
    assert len(text) <= length
    json.loads(text)


class Odd(Mapping[str, Any]):
    """A mapping that cannot be looked at."""

    def __getitem__(self, key: str) -> Any:  # noqa: ANN401  # as a mapping has it
        raise RuntimeError(KEY)

    def __iter__(self) -> Iterator[str]:
        yield "name"

    def __len__(self) -> int:
        return 1


@pytest.mark.behaviour("contents.bounded")
def test_what_json_has_no_form_for_is_named_by_its_type() -> None:
    content = {"bytes": b"x", "set": {1}, 7: "seven", "nan": float("nan"), "huge": 10**5000, "half": "\ud800"}
    assert json.loads(told(content)) == {
        "bytes": "<bytes>",
        "set": "<set>",
        "<int>": "seven",
        "nan": "<float>",
        "huge": "<int>",
        "half": "?",
    }
    assert told(Odd()) == '"<RuntimeError>"'
    assert told({"odd": Odd()}) == '"<RuntimeError>"'


@pytest.mark.behaviour("contents.bounded")
def test_what_goes_deep_and_round_is_told_to_a_depth() -> None:
    round_: list[Any] = []
    round_.append(round_)
    assert told(round_).count("[") < 40


@pytest.mark.behaviour("contents.bounded")
def test_of_what_is_long_the_beginning_is_copied_and_the_beginning_told() -> None:
    text = "0123456789" * 1_000_000
    copy = captured({"text": text, "more": 1}, LENGTH)
    assert len(repr(copy)) < LENGTH + LONGEST_SECRET + 100
    shown = json.loads(told({"text": text, "more": 1}))["text"]
    assert shown[:-1] == text[: len(shown) - 1]
    assert shown[-1] == "…"
    assert len(shown) > LENGTH * 0.9
    assert json.loads(told([0] * 1_000_000))[-1] == "…"
    assert len(json.loads(told({str(number): 0 for number in range(10_000)}))) < LENGTH


@pytest.mark.behaviour("contents.redacted")
@pytest.mark.parametrize(
    "secret",
    [
        KEY,
        "sk-ant-api03-abcdef",
        "sk-proj-" + "a1" * 20,
        "ghp_" + "a1B2" * 9,
        "github_pat_" + "a1B2" * 9,
        "glpat-" + "a1B2" * 5,
        "xoxb-1234567890-abcdef",
        "AIza" + "a1B2_" * 7,
        "AKIA" + "ABCD1234" * 2,
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nabc\n-----END RSA PRIVATE KEY-----",
    ],
)
def test_what_looks_like_a_secret_is_not_told(secret: str) -> None:
    content = {"text": f"before {secret} after", secret: [secret]}
    assert json.loads(told(content)) == {"text": "before *** after", "***": ["***"]}


@pytest.mark.behaviour("contents.redacted")
@pytest.mark.parametrize("text", ["eyJ", "sk-", "ghp_a ", "-----BEGIN A", "://a", "AKIA", "bearer "])
def test_what_only_begins_as_a_secret_takes_no_longer_than_its_length(text: str) -> None:
    redact = Redaction(Settings())

    def seconds(told: str) -> float:
        return min(timeit.repeat(lambda: redact(told), number=1, repeat=5))

    assert seconds(text * 16_000) < 32 * seconds(text * 500) * 5


@pytest.mark.behaviour("contents.redacted")
def test_ordinary_words_are_told() -> None:
    words = "task-management-with-a-long-name risk-assessment-of-everything asking akia eyJ"
    assert json.loads(told(words)) == words


@pytest.mark.behaviour("contents.redacted")
@pytest.mark.parametrize("before", range(LENGTH + LONGEST_SECRET - 60, LENGTH + LONGEST_SECRET + 5, 7))
@pytest.mark.parametrize("secrets", [0, 200])
def test_no_cut_leaves_the_beginning_of_a_secret(before: int, secrets: int) -> None:
    secret = "my very own secret of some length, that looks like none"  # noqa: S105  # nobody's
    content = f"{KEY} " * secrets
    content = content[: before - 1] + " " * (before - len(content)) + secret
    for shape in (content, [content], {"a": "x" * 100, "b": content}, {content: 1}):
        assert "my very" not in told(shape, secret=secret)


@pytest.mark.behaviour("contents.redacted")
def test_patterns_apply_to_each_text_and_to_the_json_as_a_whole() -> None:
    content = {"card": '"1234"', "password": "hunter2", "note": "é 1234 x"}
    assert json.loads(told(content, r'"\d{4}"')) == {**content, "card": "***"}
    assert told(content, r'"password":"[^"]*"', r"\d{4}") == '{"card":"\\"***\\"",***,"note":"é *** x"}'
    assert json.loads(told("aab", "c*")) == "aab"
    broken = told(["x" * 10_000, 1], r"\[")
    assert broken.startswith('***"xxx')
    assert len(broken) <= LENGTH


@pytest.mark.behaviour("contents.redacted")
def test_no_pattern_holds_the_interpreter() -> None:
    redaction = ContentRedaction(str, (r"(a+)+$", r"(a|aa)*b$"), 32_768)
    done, turns = threading.Event(), 0

    def redact() -> None:
        assert redacted("a" * 32_000 + "!", redaction)
        done.set()

    began = time.monotonic()
    thread = threading.Thread(target=redact)
    thread.start()
    while not done.wait(0.001):
        turns += 1
        assert time.monotonic() - began < DEADLINE
    thread.join()


@pytest.mark.parametrize("pattern", ["(", "a(?=b)", r"\1", "x{9999}"])
def test_what_is_no_pattern_is_refused_in_one_sentence(pattern: str, capfd: pytest.CaptureFixture[str]) -> None:
    settings = Settings(telemetry=TelemetrySettings(redact_patterns=("fine", pattern)))
    with pytest.raises(ConfigurationError, match=r"^telemetry.redact_patterns: number 2 is no pattern of RE2: .+$"):
        telemetry_options(settings)
    assert capfd.readouterr() == ("", "")


@pytest.mark.behaviour("contents.redacted")
def test_contents_that_cannot_be_redacted_are_not_told() -> None:
    def broken(text: str) -> str:
        raise RuntimeError(text)

    record = Record("tool", "name", TraceContext(1, 2), 0, 0, 0, "completed", {"a": 1}, captured={"key": "content"})
    after = ContentRedaction(broken, (), LENGTH).of(record)
    assert (after.captured, after.contents, after.attributes) == (None, None, {"a": 1})
    after = ContentRedaction(str, (), LENGTH).of(record, keep=False)
    assert (after.captured, after.contents) == (None, None)


@pytest.mark.behaviour("contents.off")
def test_without_the_setting_nothing_is_captured() -> None:
    assert telemetry_options(Settings()).contents is None
    span = MCPTelemetryClient(TelemetryOptions()).span("tool", "name")
    assert type(span) is RecordingSpan
    assert not span.captures_content
    span.set_content("key", "content")


@pytest.mark.behaviour("contents.captured")
def test_what_is_captured_is_a_copy_and_of_an_ended_span_nothing() -> None:
    ring, content = Ring(Aggregate(), None, 10), {"list": [1]}
    span = CapturingSpan(ring, "tool", "name", None, {}, length=LENGTH)
    span.set_content("key", content)
    content["list"].append(2)
    span.end("completed")
    span.set_content("late", 1)
    (record,) = ring.take(10_000)
    assert isinstance(record, Record)
    assert record.captured == {"key": {"list": [1]}}


@pytest.mark.behaviour("contents.bounded")
def test_contents_are_the_first_to_go_where_too_much_waits() -> None:
    ring = Ring(Aggregate(), None, 2 * MOST_WAITING)
    for _ in range(MOST_WAITING + 1):
        span = CapturingSpan(ring, "tool", "name", None, {}, length=LENGTH)
        span.set_content("key", "content")
        span.end("completed")
    *before, last = [record.captured for record in ring.take(10_000) if isinstance(record, Record)]
    assert before == [{"key": "content"}] * MOST_WAITING
    assert last is None


@pytest.mark.behaviour("contents.captured", "contents.bounded")
def test_a_content_arrives_in_its_own_length_and_no_other_attribute_does() -> None:
    with receiving("http") as receiver:
        redaction = ContentRedaction(str, (), LENGTH)
        client = MCPTelemetryClient(TelemetryOptions(endpoint=receiver.endpoint, protocol="http", contents=redaction))
        client.start()
        span = client.span("tool", "name")
        span.set_content("content", "c" * 10_000)
        span.set("attribute", "a" * 10_000)
        span.end("completed")
        assert receiver.wait_for(lambda: bool(receiver.spans()), DEADLINE)
        client.shutdown(DEADLINE)
        attributes = receiver.spans()[0]["attributes"]
        assert len(attributes["attribute"]) == 1024
        assert LENGTH * 0.9 < len(attributes["content"]) <= LENGTH
