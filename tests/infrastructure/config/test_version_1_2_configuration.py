from __future__ import annotations

from pathlib import Path

import pytest

from support.configuration import load, refusal
from tfo_mcp.infrastructure.config import Settings

SAMPLE = """
server: {name: "TelemetryFlow-MCP", version: "1.2.0", transport: "stdio", debug: false}
claude: {api_key: "", default_model: "claude-sonnet-4-20250514", max_tokens: 4096, temperature: 1.0, timeout: 120.0,
  max_retries: 3}
mcp: {protocol_version: "2024-11-05", enable_tools: true, enable_resources: true, enable_prompts: true,
  enable_logging: true, enable_sampling: false, tool_timeout: 30.0}
logging: {level: "info", format: "json", output: "stderr"}
telemetry: {enabled: false, service_name: "telemetryflow-python-mcp", service_version: "1.2.0",
  service_namespace: "telemetryflow", environment: "production", api_key_id: "", api_key_secret: "",
  endpoint: "api.telemetryflow.id:4317", protocol: "grpc", insecure: false, timeout: 30.0, compression: true,
  enable_traces: true, enable_metrics: true, enable_logs: true, enable_exemplars: true, batch_timeout_ms: 5000,
  batch_max_size: 512, retry_enabled: true, max_retries: 3, retry_backoff_ms: 500, rate_limit: 1000}
"""
"""The settings of the file that `tfo-mcp init-config` of version 1.2.0 writes."""

VARIABLES = {
    "TELEMETRYFLOW_MCP_SERVER_": "NAME=n VERSION=1.2.0 HOST=localhost PORT=8080 TRANSPORT=stdio DEBUG=false "
    "READ_TIMEOUT=300 WRITE_TIMEOUT=60",
    "TELEMETRYFLOW_MCP_CLAUDE_": "API_KEY=k DEFAULT_MODEL=claude-sonnet-4-20250514 MAX_TOKENS=4096 TEMPERATURE=1.0 "
    "TIMEOUT=120.0 MAX_RETRIES=3 BASE_URL=https://api.example",
    "TELEMETRYFLOW_MCP_MCP_": "PROTOCOL_VERSION=2024-11-05 ENABLE_TOOLS=true ENABLE_RESOURCES=true "
    "ENABLE_PROMPTS=true ENABLE_LOGGING=true ENABLE_SAMPLING=false TOOL_TIMEOUT=30 MAX_MESSAGE_SIZE=10485760",
    "TELEMETRYFLOW_MCP_LOG_": "LEVEL=INFO FORMAT=json OUTPUT=stdout",
    "TELEMETRYFLOW_MCP_": "REDIS_URL=r CACHE_ENABLED=true CACHE_TTL=300 QUEUE_ENABLED=true QUEUE_CONCURRENCY=5 "
    "NATS_URL=n POSTGRES_URL=p POSTGRES_MAX_CONNS=25 POSTGRES_MIN_CONNS=5 CLICKHOUSE_URL=c",
    "TELEMETRYFLOW_MCP_TELEMETRY_": "ENABLED=yes BACKEND=otel OTLP_ENDPOINT=localhost:4317 SERVICE_NAME=s",
    "TELEMETRYFLOW_": "ENABLED=on SERVICE_NAME=s SERVICE_VERSION=1.2.0 SERVICE_NAMESPACE=s ENVIRONMENT=e API_KEY=k "
    "API_KEY_ID=tfk_k API_KEY_SECRET=tfs_k ENDPOINT=localhost:4317 PROTOCOL=http INSECURE=1 TIMEOUT=30 "
    "COMPRESSION=no ENABLE_TRACES=true ENABLE_METRICS=true ENABLE_LOGS=true ENABLE_EXEMPLARS=true "
    "BATCH_TIMEOUT_MS=5000 BATCH_MAX_SIZE=512 RETRY_ENABLED=true MAX_RETRIES=3 RETRY_BACKOFF_MS=500 RATE_LIMIT=1000",
}
"""Every variable of version 1.2.0, by its prefix."""

EVERYTHING = """
server: {name: Mine, version: 1.2.0, host: localhost, port: 8080, transport: stdio, debug: false,
  read_timeout: 300.0, write_timeout: 60.0}
claude: {api_key: "", default_model: claude-sonnet-4-20250514, max_tokens: 4096, temperature: 1.0, timeout: 120.0,
  max_retries: 3, base_url: null}
mcp: {protocol_version: "2024-11-05", enable_tools: true, enable_resources: true, enable_prompts: true,
  enable_logging: true, enable_sampling: false, tool_timeout: 12.0, max_message_size: 10485760}
logging: {level: info, format: json, output: stdout}
cache: {redis_url: "redis://localhost:6379", cache_enabled: true, cache_ttl: 300}
queue: {queue_enabled: true, queue_concurrency: 5, nats_url: "nats://localhost:4222"}
database: {postgres_url: "postgres://u:hunter2@localhost/x", postgres_max_conns: 25, postgres_min_conns: 5}
analytics: {clickhouse_url: "clickhouse://localhost:9000/x"}
telemetry_mcp: {enabled: true, backend: otel, otlp_endpoint: "localhost:4317", service_name: x}
telemetry: {enabled: true, service_name: mine, service_version: 1.2.0, service_namespace: ours,
  environment: staging, api_key: tfs_old, api_key_id: tfk_a, api_key_secret: tfs_b,
  endpoint: "api.telemetryflow.id:4317", protocol: grpc, insecure: false, timeout: 30.0, compression: true,
  enable_traces: true, enable_metrics: true, enable_logs: true, enable_exemplars: true, batch_timeout_ms: 5000,
  batch_max_size: 512, retry_enabled: true, max_retries: 3, retry_backoff_ms: 500, rate_limit: 1000}
"""


def test_a_file_with_everything_loads_with_one_warning(tmp_path: Path) -> None:
    loaded = load(tmp_path, EVERYTHING)

    (warning,) = loaded.warnings
    assert warning == (
        "settings of version 1.2 that have no effect any more: analytics, cache, claude.temperature, database, "
        "mcp.enable_sampling, mcp.protocol_version, queue, server.debug, server.host, "
        "server.port, server.read_timeout, server.version, server.write_timeout, telemetry.api_key, "
        "telemetry.batch_max_size, "
        "telemetry.batch_timeout_ms, telemetry.enable_exemplars, "
        "telemetry.enable_metrics, telemetry.enable_traces, telemetry.max_retries, telemetry.rate_limit, "
        "telemetry.retry_backoff_ms, telemetry.retry_enabled, telemetry.service_version, telemetry_mcp; "
        "telemetry.enable_logs is telemetry.logs now; "
        "claude.default_model 'claude-sonnet-4-20250514' is retired, 'claude-sonnet-5-5' takes its place; "
        "logging.output 'stdout' belongs to the protocol, 'stderr' takes its place"
    )
    settings = loaded.settings
    assert (settings.server.name, settings.claude.max_retries, settings.mcp.tool_timeout) == ("Mine", 3, 12.0)
    assert (settings.claude.default_model, settings.logging.output) == ("claude-sonnet-5-5", "stderr")
    assert (settings.telemetry.endpoint, settings.telemetry.timeout) == ("api.telemetryflow.id:4317", 30.0)


def test_the_sample_file_loads_with_one_warning_and_no_other_effect(tmp_path: Path) -> None:
    loaded = load(tmp_path, SAMPLE)

    (warning,) = loaded.warnings
    assert warning.startswith("settings of version 1.2 that have no effect any more: claude.temperature, ")
    assert warning.endswith("is retired, 'claude-sonnet-5-5' takes its place")
    assert loaded.settings.telemetry.endpoint == "api.telemetryflow.id:4317"
    assert not loaded.settings.telemetry.enabled
    assert loaded.settings.server == Settings().server


def test_every_variable_loads_with_one_warning(tmp_path: Path) -> None:
    environ = {
        f"{prefix}{name}": value
        for prefix, assignments in VARIABLES.items()
        for name, value in (assignment.split("=") for assignment in assignments.split())
    }

    loaded = load(tmp_path, SAMPLE, environ=environ)

    assert len(loaded.warnings) == 1, loaded.warnings
    assert loaded.settings.claude.base_url == "https://api.example"
    assert loaded.settings.mcp.max_message_size == 10_485_760
    telemetry = loaded.settings.telemetry
    assert (telemetry.enabled, telemetry.insecure, telemetry.compression) == (True, True, False)


def test_the_one_transport_there_is_needs_no_warning(tmp_path: Path) -> None:
    assert load(tmp_path, "server: {transport: stdio}").warnings == ()
    assert load(tmp_path, "server: {transport: }\ncache:\n").warnings == ()
    (warning,) = load(tmp_path, "server: {transport: STDIO, host: localhost, port: 8080}").warnings
    assert warning == "settings of version 1.2 that have no effect any more: server.host, server.port"


def test_what_is_switched_off_there_stays_off(tmp_path: Path) -> None:
    loaded = load(tmp_path, "mcp: {enable_tools: false, enable_resources: false, enable_prompts: false}")

    settings = loaded.settings.mcp
    assert (settings.enable_tools, settings.enable_resources, settings.enable_prompts) == (False, False, False)
    assert loaded.warnings == ()


def test_variables_that_have_gone_are_named_in_the_same_warning(tmp_path: Path) -> None:
    environ = {
        "TELEMETRYFLOW_MCP_REDIS_URL": "redis://:hunter2@localhost",
        "TELEMETRYFLOW_MCP_TELEMETRY_BACKEND": "otel",
        "TELEMETRYFLOW_MCP_CLAUDE_TEMPERATURE": "1.0",
        "TELEMETRYFLOW_MCP_SERVER_TRANSPORT": "stdio",
    }

    (warning,) = load(tmp_path, "queue: {queue_enabled: true}", environ=environ).warnings
    assert warning == (
        "settings of version 1.2 that have no effect any more: TELEMETRYFLOW_MCP_CLAUDE_TEMPERATURE, "
        "TELEMETRYFLOW_MCP_REDIS_URL, TELEMETRYFLOW_MCP_TELEMETRY_BACKEND, queue"
    )


@pytest.mark.parametrize("transport", ["sse", "websocket", "http"])
def test_another_transport_is_refused(tmp_path: Path, transport: str) -> None:
    sentence = "server.transport must be 'stdio', the only one of this version"
    variable = "TELEMETRYFLOW_MCP_SERVER_TRANSPORT"

    assert refusal(tmp_path, f"server:\n  transport: {transport}\n") == f"line 2: {sentence}"
    assert refusal(tmp_path, environ={variable: transport}) == f"{variable}: {sentence}"


@pytest.mark.parametrize("model", ["claude-3-5-sonnet-20241022", "claude-opus-4-20250514", "claude-2.1"])
def test_a_retired_model_is_replaced(tmp_path: Path, model: str) -> None:
    loaded = load(tmp_path, f"claude: {{default_model: {model}}}")

    assert loaded.settings.claude.default_model == "claude-sonnet-5-5"
    assert loaded.warnings == (f"claude.default_model '{model}' is retired, 'claude-sonnet-5-5' takes its place",)


@pytest.mark.parametrize("model", ["claude-sonnet-4-5-20250929", "claude-opus-4-7", "some-gateway/model"])
def test_any_other_model_stays(tmp_path: Path, model: str) -> None:
    loaded = load(tmp_path, f"claude: {{default_model: {model}}}")

    assert (loaded.settings.claude.default_model, loaded.warnings) == (model, ())


def test_logs_that_were_switched_off_stay_off(tmp_path: Path) -> None:
    loaded = load(tmp_path, "telemetry: {enable_logs: no}")

    assert not loaded.settings.telemetry.logs
    assert loaded.warnings == ("telemetry.enable_logs is telemetry.logs now",)
    assert load(tmp_path, "telemetry: {enable_logs: no, logs: yes}").settings.telemetry.logs
