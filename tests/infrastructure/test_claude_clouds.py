"""Bedrock and Vertex AI: what the SDK's clients send to a loopback server, and what is told where they cannot."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import struct
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tfo_mcp.application.ports import ClaudeRequest, ClaudeResponse
from tfo_mcp.domain.errors import ClaudeFailure
from tfo_mcp.domain.health import HealthStatus
from tfo_mcp.domain.message import Message, Text
from tfo_mcp.domain.transcript import Transcript
from tfo_mcp.infrastructure.claude import AnthropicClaude, Bedrock, Vertex
from tfo_mcp.infrastructure.claude.clouds import Cloud

DEADLINE = 30.0
KEY = "sk-ant-of-another"
USAGE = {"input_tokens": 3, "output_tokens": 1}
EVENTS: list[dict[str, Any]] = [
    {
        "type": "message_start",
        "message": {
            "id": "m", "type": "message", "role": "assistant", "model": "claude-x", "content": [],
            "stop_reason": None, "stop_sequence": None, "usage": USAGE,
        },
    },
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello from the cloud"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": USAGE},
    {"type": "message_stop"},
]  # fmt: skip


def frame(headers: Mapping[str, str], payload: bytes) -> bytes:
    """One message of `application/vnd.amazon.eventstream`; all headers are strings."""
    head = b"".join(
        bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
        for name, value in headers.items()
    )
    prelude = struct.pack(">II", 16 + len(head) + len(payload), len(head))
    prelude += struct.pack(">I", binascii.crc32(prelude))
    return prelude + head + payload + struct.pack(">I", binascii.crc32(prelude + head + payload))


def by_bedrock(events: list[dict[str, Any]]) -> bytes:
    headers = {":event-type": "chunk", ":content-type": "application/json", ":message-type": "event"}
    payloads = [json.dumps({"bytes": base64.b64encode(json.dumps(event).encode()).decode()}) for event in events]
    return b"".join(frame(headers, payload.encode()) for payload in payloads)


def by_vertex(events: list[dict[str, Any]]) -> bytes:
    return b"".join(b"event: %s\ndata: %s\n\n" % (e["type"].encode(), json.dumps(e).encode()) for e in events)


STREAMS = {"bedrock": "application/vnd.amazon.eventstream", "vertex": "text/event-stream"}


class Recorder:
    """What a server was sent: lines of requests, their headers and bodies."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self.lines: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[Any] = []


@asynccontextmanager
async def recording(content_type: str, body: bytes, status: int = 200, more: str = "") -> AsyncGenerator[Recorder]:
    serving: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())
        line, *fields = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        headers = {name.lower(): value for name, value in (field.split(": ", 1) for field in fields)}
        recorder.lines.append(line)
        recorder.headers.append(headers)
        recorder.bodies.append(json.loads(await reader.readexactly(int(headers["content-length"]))))
        head = f"HTTP/1.1 {status} X\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n"
        writer.write(f"{head}{more}connection: close\r\n\r\n".encode() + body)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    recorder = Recorder(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    try:
        yield recorder
    finally:
        server.close()
        await asyncio.wait_for(asyncio.gather(*filter(None, serving)), DEADLINE)


def service(cloud: Cloud, base_url: str | None) -> AnthropicClaude:
    return AnthropicClaude(
        api_key=KEY,
        base_url=base_url,
        cloud=cloud,
        timeout=DEADLINE,
        max_retries=0,
        default_model="claude-x",
        model_refresh=3600,
        tracer_provider=lambda: None,
    )


def request(model: str) -> ClaudeRequest:
    said = Transcript((Message("user", (Text("Hello"),)),))
    return ClaudeRequest(model=model, max_tokens=100, system=None, transcript=said, tools=())


def ask(
    cloud: Cloud,
    model: str,
    body: bytes,
    *,
    times: int = 1,
    status: int = 200,
    kind: str | None = None,
    more: str = "",
) -> tuple[Recorder, list[ClaudeResponse]]:
    async def run() -> tuple[Recorder, list[ClaudeResponse]]:
        async with recording(kind or STREAMS[cloud.name], body, status, more) as recorder:
            claude = service(cloud, recorder.base_url)
            try:
                return recorder, [await claude.create_message(request(model)) for _ in range(times)]
            finally:
                await claude.close()

    return asyncio.run(asyncio.wait_for(run(), DEADLINE))


def failure(
    cloud: Cloud, body: bytes = b"{}", *, status: int = 200, kind: str | None = None, more: str = ""
) -> ClaudeFailure:
    with pytest.raises(ClaudeFailure) as raised:
        ask(cloud, "claude-x", body, status=status, kind=kind, more=more)
    return raised.value


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No credentials of this machine, and nobody asked for any."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_REGION",
                 "AWS_DEFAULT_REGION", "AWS_BEARER_TOKEN_BEDROCK", "GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT",
                 "GOOGLE_APPLICATION_CREDENTIALS", "CLOUD_ML_REGION", "ANTHROPIC_VERTEX_PROJECT_ID"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials that AWS's chain finds."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-a-secret")
    _forget_sessions()


def _forget_sessions() -> None:
    from anthropic.lib.aws import _auth

    sessions: Any = _auth._get_session  # pyright: ignore[reportPrivateUsage]  # the SDK keeps them for the process
    sessions.cache_clear()


@pytest.fixture
def tokens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Google credentials in a file, whose tokens are counted and given without asking anybody."""
    from google.oauth2 import credentials

    given: list[str] = []

    def refresh(self: Any, _: object) -> None:  # noqa: ANN401  # Google's class has no types
        given.append(f"token-{len(given) + 1}")
        self.token, self.expiry = given[-1], None

    file = tmp_path / "adc.json"
    fields = {"type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "r"}
    file.write_text(json.dumps({**fields, "quota_project_id": "of-the-quota"}), encoding="utf-8")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    monkeypatch.setattr(credentials.Credentials, "refresh", refresh)
    return given


# --- Bedrock ---


@pytest.mark.usefixtures("aws")
def test_bedrock_is_asked_by_the_models_name_in_its_path_with_a_signature_and_no_key() -> None:
    recorder, (answer,) = ask(Bedrock("eu-west-1"), "eu.anthropic.claude-x-v1:0", by_bedrock(EVENTS))

    assert (answer.message.text, answer.message.stop_reason) == ("Hello from the cloud", "end_turn")
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (3, 1)
    assert recorder.lines == ["POST /model/eu.anthropic.claude-x-v1:0/invoke-with-response-stream HTTP/1.1"]
    (headers,), (body,) = recorder.headers, recorder.bodies
    assert headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/")
    assert "/eu-west-1/bedrock/aws4_request" in headers["authorization"]
    assert KEY not in str(headers)
    assert "model" not in body
    assert [message["role"] for message in body["messages"]] == ["user"]
    assert body["anthropic_version"]


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize("status", [401, 403])
def test_credentials_that_bedrock_refuses_are_what_is_to_be_checked(status: int) -> None:
    failed = failure(Bedrock("eu-west-1"), b'{"message": "no"}', status=status, kind="application/json")

    assert str(failed) == (
        "Amazon Bedrock refused these credentials: check the AWS credentials, and whether they may use this model in "
        "claude.aws_region"
    )
    assert (failed.status, failed.counts) == (status, False)


@pytest.mark.usefixtures("aws")
def test_a_model_that_bedrock_does_not_know_is_named() -> None:
    failed = failure(Bedrock("eu-west-1"), b'{"message": "no"}', status=404, kind="application/json")

    assert str(failed) == "Amazon Bedrock does not know the model 'claude-x'"


@pytest.mark.usefixtures("aws")
def test_an_answer_of_bedrocks_that_breaks_off_is_told_as_such() -> None:
    assert "broke off before its end" in str(failure(Bedrock("eu-west-1"), by_bedrock(EVENTS[:3])))


def test_without_aws_credentials_bedrock_says_what_to_check() -> None:
    _forget_sessions()

    assert "Amazon Bedrock cannot be asked without credentials: check the AWS" in str(failure(Bedrock("eu-west-1")))


def test_without_a_region_bedrock_says_which_setting_is_missing_and_goes_on_once_it_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def run() -> None:
        async with recording(STREAMS["bedrock"], by_bedrock(EVENTS)) as recorder:
            claude = service(Bedrock(None), recorder.base_url)
            await claude.warm_up()
            with pytest.raises(ClaudeFailure, match=r"set claude\.aws_region"):
                await claude.create_message(request("claude-x"))
            monkeypatch.setenv("AWS_REGION", "eu-west-1")
            monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "bearer")
            assert (await claude.create_message(request("claude-x"))).message.text == "Hello from the cloud"
            assert recorder.headers[0]["authorization"] == "Bearer bearer"
            await claude.close()

    asyncio.run(asyncio.wait_for(run(), DEADLINE))


@pytest.mark.usefixtures("aws")
def test_what_bedrock_refuses_is_told_in_its_own_words() -> None:
    said = b'{"message": "The provided model identifier is invalid."}'
    more = "x-amzn-requestid: amazons-1\r\n"
    failed = failure(Bedrock("eu-west-1"), said, status=400, kind="application/json", more=more)

    assert str(failed) == (
        "Claude's API refused the request (status 400): The provided model identifier is invalid. "
        "(request id amazons-1)"
    )


# --- Vertex AI ---


def test_vertex_is_asked_by_project_region_and_model_with_googles_token(tokens: list[str]) -> None:
    recorder, answers = ask(Vertex("my-project", "europe-west1"), "claude-x@20260101", by_vertex(EVENTS), times=3)

    assert [answer.message.text for answer in answers] == ["Hello from the cloud"] * 3
    place = "/projects/my-project/locations/europe-west1/publishers/anthropic/models"
    assert recorder.lines == [f"POST {place}/claude-x@20260101:streamRawPredict HTTP/1.1"] * 3
    assert [headers["authorization"] for headers in recorder.headers] == ["Bearer token-1"] * 3
    assert tokens == ["token-1"]
    assert KEY not in str(recorder.headers)
    assert all("model" not in body for body in recorder.bodies)


@pytest.mark.usefixtures("tokens")
@pytest.mark.parametrize(
    ("cloud", "sentence"),
    [
        (Vertex("p", None), "Vertex AI is asked in a region, and none is configured: set claude.vertex_region"),
        (Vertex(None, "global"), "Vertex AI is asked for a project, and none is configured: set claude.vertex_project"),
    ],
)
def test_without_a_region_or_a_project_vertex_says_which_setting_is_missing(cloud: Cloud, sentence: str) -> None:
    assert str(failure(cloud)) == sentence


def test_without_google_credentials_vertex_says_what_to_check() -> None:
    assert str(failure(Vertex("p", "global"))).startswith(
        "Vertex AI cannot be asked without credentials: check Google's application default credentials"
    )


@pytest.mark.usefixtures("tokens")
def test_a_model_that_vertex_does_not_know_is_named() -> None:
    failed = failure(Vertex("p", "global"), b'{"error": {"code": 404}}', status=404, kind="application/json")

    assert str(failed) == "Vertex AI does not know the model 'claude-x'"


# --- both ---


@pytest.mark.usefixtures("aws", "tokens")
@pytest.mark.parametrize(
    ("cloud", "stream"), [(Bedrock("eu-west-1"), by_bedrock(EVENTS)), (Vertex("p", "global"), by_vertex(EVENTS))]
)
def test_a_cloud_caches_up_to_the_last_block_and_is_not_sent_the_field_that_it_refuses(
    cloud: Cloud, stream: bytes
) -> None:
    recorder, _ = ask(cloud, "claude-x", stream)

    assert "cache_control" not in recorder.bodies[0]
    marked = {"type": "text", "text": "Hello", "cache_control": {"type": "ephemeral"}}
    assert recorder.bodies[0]["messages"] == [{"role": "user", "content": [marked]}]


@pytest.mark.parametrize(
    ("cloud", "module", "extra"),
    [(Bedrock("eu-west-1"), "boto3", "bedrock"), (Vertex("p", "global"), "google.auth", "vertex")],
)
def test_a_missing_extra_is_named_before_anything_is_sent(
    monkeypatch: pytest.MonkeyPatch, cloud: Cloud, module: str, extra: str
) -> None:
    def missing(name: str) -> None:
        assert name == module

    monkeypatch.setattr("tfo_mcp.infrastructure.claude.clouds.find_spec", missing)
    claude = service(cloud, None)

    with pytest.raises(ClaudeFailure, match=rf"install telemetryflow-python-mcp\[{extra}\]"):
        claude.check_configured()
    asyncio.run(claude.warm_up())
    assert asyncio.run(claude.health()).status is HealthStatus.DEGRADED


@pytest.mark.parametrize("cloud", [Bedrock("eu-west-1"), Vertex("p", "global")])
def test_a_cloud_needs_no_key_and_describes_no_models(cloud: Cloud) -> None:
    async def run() -> None:
        claude = service(cloud, "http://127.0.0.1:9")
        claude.check_configured()
        assert await claude.describe("claude-x") is None
        health = await claude.health()
        assert (health.status, health.details["provider"]) == (HealthStatus.HEALTHY, cloud.name)
        assert "key_present" not in health.details
        await claude.close()

    asyncio.run(run())


def test_tokens_are_counted_at_vertex_and_not_at_bedrock(tokens: list[str]) -> None:
    async def run(cloud: Cloud) -> tuple[int | None, list[str]]:
        async with recording("application/json", b'{"input_tokens": 7}') as recorder:
            claude = service(cloud, recorder.base_url)
            counted = await claude.count_tokens(request("claude-x"))
            await claude.close()
            return counted, recorder.lines

    place = "/projects/p/locations/global/publishers/anthropic/models"
    assert asyncio.run(run(Vertex("p", "global"))) == (7, [f"POST {place}/count-tokens:rawPredict HTTP/1.1"])
    assert asyncio.run(run(Bedrock("eu-west-1"))) == (None, [])
    assert tokens == ["token-1"]
