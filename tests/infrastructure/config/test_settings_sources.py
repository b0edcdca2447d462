from __future__ import annotations

import json
import traceback
from decimal import Decimal
from operator import attrgetter
from pathlib import Path

import pytest

from support.configuration import load, refusal
from tfo_mcp.domain.message import Usage
from tfo_mcp.domain.price import Cost
from tfo_mcp.infrastructure.config import ConfigurationError, Secret, TelemetrySettings, masked, secrets_of
from tfo_mcp.infrastructure.config.environment import variables_of
from tfo_mcp.infrastructure.config.prices import prices_of
from tfo_mcp.infrastructure.config.settings import SECTIONS, Settings, settings_of
from tfo_mcp.infrastructure.config.values import expected

ALL_SETTINGS = [(section, key) for section in SECTIONS for key in settings_of(section)]


EXAMPLES = {
    "one of power, process": "power",
    "a list of at most 100 patterns of at most 1000 characters, as RE2 knows them": r'["card-[0-9]{4,}", "a+"]',
    "text": "example",
    "text of 1 to 200 characters": "example",
    "text of 1 to 20 characters": "EUR",
    "a mapping of models to their input, output, cache_read and cache_write, each a number from 0 to 1000000": (
        '{"example": {"input": 3, "output": 15, "cache_read": 0.3, "cache_write": 3.75}}'
    ),
    "true or false": "false",
    "a name of letters, digits and `-`": "example",
    "a path": "/example",
    "stderr or a path": "/example",
    "a list of paths": "/one, /two",
    "a list of programs, each a name or an absolute path": "one, /two",
    "a list of names of tools": "one, two",
    "a mapping of names to text": "one=two",
    "a mapping of at most 64 names to text of at most 1000 characters": "one=two",
    "a URL such as https://host/path, without a user or password": "https://example",
    "host:port or a URL such as https://host:4318, without a user or password": "example:4317",
}
"""A value that is no default, by what may be. Of a range or a choice it is the last word."""


def test_the_command_line_comes_before_variables_before_the_file_before_the_default(tmp_path: Path) -> None:
    text = "claude: {base_url: 'https://file'}"
    foreign = {"ANTHROPIC_BASE_URL": "https://foreign"}
    own = {"TELEMETRYFLOW_MCP_CLAUDE_BASE_URL": "https://own"}
    flags = {"claude.base_url": "https://flag"}

    assert load(tmp_path).settings.claude.base_url is None
    assert load(tmp_path, text).settings.claude.base_url == "https://file"
    assert load(tmp_path, text, environ=foreign).settings.claude.base_url == "https://foreign"
    assert load(tmp_path, text, environ=foreign | own).settings.claude.base_url == "https://own"
    assert load(tmp_path, text, environ=own, flags=flags).settings.claude.base_url == "https://flag"


def test_a_flag_that_was_not_given_says_nothing(tmp_path: Path) -> None:
    loaded = load(tmp_path, "logging: {level: debug}", flags={"logging.level": None})

    assert loaded.settings.logging.level == "debug"


@pytest.mark.parametrize(("section", "key"), ALL_SETTINGS)
def test_every_setting_has_variables(tmp_path: Path, section: str, key: str) -> None:
    value_in = attrgetter(f"{section}.{key}")
    before = value_in(load(tmp_path).settings)
    allowed = expected(section, key)
    example = "true" if before is False else EXAMPLES.get(allowed) or allowed.split()[-1]

    for variable in variables_of(f"{section}.{key}"):
        loaded = load(tmp_path, environ={variable: example})
        assert value_in(loaded.settings) != before, variable
        assert not [warning for warning in loaded.warnings if variable in warning]


def test_lists_and_mappings_have_commas_in_variables(tmp_path: Path) -> None:
    environ = {"TELEMETRYFLOW_MCP_TOOLS_ROOTS": "/srv/a, /srv/b", "TELEMETRYFLOW_HEADERS": "x-a=1, x-b=2=3"}

    settings = load(tmp_path, environ=environ).settings

    assert settings.tools.roots == (Path("/srv/a"), Path("/srv/b"))
    assert {name: value.reveal() for name, value in settings.telemetry.headers.items()} == {"x-a": "1", "x-b": "2=3"}


def test_a_list_of_none_can_be_said_in_a_variable(tmp_path: Path) -> None:
    loaded = load(tmp_path, "claude: {allow_tools: [echo]}", environ={"TELEMETRYFLOW_MCP_CLAUDE_ALLOW_TOOLS": "[]"})

    assert loaded.settings.claude.allow_tools == ()


def test_prices_are_those_that_were_written(tmp_path: Path) -> None:
    written = {"input": 3, "output": 15.0, "cache_read": 0.1, "cache_write": 3.7499999}
    text = (
        "claude: {currency: EUR, prices: {claude-test-1.5: {input: 3, output: 15, cache_read: .1, cache_write: 4e0}}}"
    )
    environ = {"TELEMETRYFLOW_MCP_CLAUDE_PRICES": json.dumps({"claude-test-2": written})}

    from_file, from_variable = (load(tmp_path, text, environ=given).settings.claude for given in ({}, environ))

    usage = Usage(1_000_000, 1_000_000, 1_000_000, 1_000_000)
    cost = prices_of(from_file.prices, from_file.currency).cost("claude-test-1.5", usage)
    assert cost == Cost(Decimal("22.1"), "EUR")
    prices = prices_of(from_variable.prices, from_variable.currency)
    assert prices.cost("claude-test-2", usage) == Cost(Decimal("21.8499999"), "EUR")
    assert prices.cost("claude-test-1.5", usage) is None


@pytest.mark.parametrize(
    "wrong",
    [
        "3",
        "[1]",
        "{claude-test-1: 3}",
        "{claude-test-1: {input: 3, output: 15}}",
        "{claude-test-1: {input: 3, output: 15, cache_read: 0.3, cache_wriet: 3.75}}",
        "{claude-test-1: {input: -3, output: 15, cache_read: 0.3, cache_write: 3.75}}",
        "{claude-test-1: {input: .nan, output: 15, cache_read: 0.3, cache_write: 3.75}}",
        "{claude-test-1: {input: much, output: 15, cache_read: 0.3, cache_write: 3.75}}",
        "{claude-test-1: {input: 3, output: 15, cache_read: 0.3, cache_write: 3.75, currency: EUR}}",
        '{"": {input: 3, output: 15, cache_read: 0.3, cache_write: 3.75}}',
    ],
)
def test_prices_that_are_not_whole_are_refused_with_what_they_must_be(tmp_path: Path, wrong: str) -> None:
    expected_words = (
        "claude.prices must be a mapping of models to their input, output, cache_read and cache_write, each a number "
        "from 0 to 1000000"
    )
    assert refusal(tmp_path, f"claude:\n  prices: {wrong}") == f"line 2: {expected_words}"
    in_variable = refusal(tmp_path, environ={"TELEMETRYFLOW_MCP_CLAUDE_PRICES": wrong})
    assert in_variable == f"TELEMETRYFLOW_MCP_CLAUDE_PRICES: {expected_words}"


def test_opentelemetry_variables_are_read_in_their_own_form(tmp_path: Path) -> None:
    environ = {
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20abc",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "2500",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_SDK_DISABLED": "TRUE",
        "OTEL_RESOURCE_ATTRIBUTES": "service.name=a,service.namespace=b,deployment.environment.name=c%20d,team=x%2Cy",
        "OTEL_SERVICE_NAME": "named",
    }

    telemetry = load(tmp_path, environ=environ).settings.telemetry

    assert telemetry.headers["authorization"].reveal() == "Bearer abc"
    assert (telemetry.timeout, telemetry.compression, telemetry.protocol) == (2.5, False, "http/protobuf")
    assert not telemetry.enabled
    assert (telemetry.service_name, telemetry.service_namespace, telemetry.environment) == ("named", "b", "c d")
    assert telemetry.resource_attributes == {"team": "x,y"}


def test_resource_attributes_have_dots_in_their_names_in_the_file_too(tmp_path: Path) -> None:
    text = "telemetry: {resource_attributes: {k8s.pod.name: pod-7}}"

    assert load(tmp_path, text).settings.telemetry.resource_attributes == {"k8s.pod.name": "pod-7"}


@pytest.mark.parametrize(
    "given",
    [
        ",".join(f"name{number}=x" for number in range(65)),
        f"name={'x' * 1001}",
        f"{'n' * 201}=x",
    ],
)
def test_resource_attributes_are_bounded_in_number_and_length(tmp_path: Path, given: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load(tmp_path, environ={"OTEL_RESOURCE_ATTRIBUTES": given})
    assert str(refused.value).startswith(
        "OTEL_RESOURCE_ATTRIBUTES: telemetry.resource_attributes must be a mapping of at most 64 names"
    )


def test_space_around_a_variable_or_a_secret_is_not_part_of_it(tmp_path: Path) -> None:
    environ = {"ANTHROPIC_API_KEY": "sk-ant-1\n", "TELEMETRYFLOW_ENDPOINT": "  ", "TELEMETRYFLOW_TIMEOUT": " 5 "}

    settings = load(tmp_path, environ=environ).settings

    assert settings.claude.api_key.reveal() == "sk-ant-1"
    assert load(tmp_path, "claude:\n  api_key: |\n    sk-ant-2\n").settings.claude.api_key.reveal() == "sk-ant-2"
    assert (settings.telemetry.endpoint, settings.telemetry.timeout) == (None, 5.0)


def test_a_section_inside_a_section_is_set_by_every_source(tmp_path: Path) -> None:
    text = "tools: {threads: 3, execute_command: {allow: [git, /bin/ls], timeout: 5}}"
    environ = {
        "TELEMETRYFLOW_MCP_TOOLS_EXECUTE_COMMAND_ALLOW": "make, rg",
        "TELEMETRYFLOW_MCP_TOOLS_EXECUTE_COMMAND_SANDBOX": "none",
    }
    flags = {"tools.execute_command.timeout": 7}

    in_file = load(tmp_path, text).settings.tools
    over_it = load(tmp_path, text, environ=environ, flags=flags).settings

    assert (in_file.threads, in_file.execute_command.allow, in_file.execute_command.timeout) == (
        3,
        ("git", "/bin/ls"),
        5.0,
    )
    command = over_it.tools.execute_command
    assert (command.allow, command.sandbox, command.timeout) == (("make", "rg"), "none", 7.0)
    assert masked(over_it)["tools"]["execute_command"] == {
        "allow": ("make", "rg"),
        "sandbox": "none",
        "timeout": 7.0,
        "max_output_bytes": Settings().tools.execute_command.max_output_bytes,
    }


def test_an_sdk_that_is_not_disabled_does_not_turn_recording_on(tmp_path: Path) -> None:
    loaded = load(tmp_path, "telemetry: {enabled: false}", environ={"OTEL_SDK_DISABLED": "false"})

    assert not loaded.settings.telemetry.enabled


def test_an_empty_variable_is_not_set(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        "claude: {base_url: 'https://file'}",
        environ={"ANTHROPIC_BASE_URL": "", "TELEMETRYFLOW_ENDPOINT": "", "TELEMETRYFLOW_MCP_LOG_LEVEL": ""},
    )

    assert loaded.settings.claude.base_url == "https://file"
    assert loaded.settings.telemetry.endpoint is None


@pytest.mark.parametrize(
    ("variable", "text", "sentence"),
    [
        (
            "TELEMETRYFLOW_MCP_LOG_LEVEL",
            "loud",
            "logging.level must be one of critical, debug, error, info, warning",
        ),
        (
            "TELEMETRYFLOW_MCP_MCP_TOOL_TIMEOUT",
            "soon",
            "mcp.tool_timeout must be a number above 0 and at most 86400",
        ),
        ("TELEMETRYFLOW_MCP_TOOLS_THREADS", "0", "tools.threads must be a whole number from 1 to 256"),
        ("TELEMETRYFLOW_ENABLED", "perhaps", "telemetry.enabled must be true or false"),
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "https://user:word@host",
            "telemetry.endpoint must be host:port or a URL such as https://host:4318, without a user or password",
        ),
        (
            "ANTHROPIC_BASE_URL",
            "api.example",
            "claude.base_url must be a URL such as https://host/path, without a user or password",
        ),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_variable(
    tmp_path: Path, variable: str, text: str, sentence: str
) -> None:
    assert refusal(tmp_path, environ={variable: text}) == f"{variable}: {sentence}"


@pytest.mark.parametrize(
    ("variable", "sentence"),
    [
        ("TELEMETRYFLOW_HEADERS", "must be a list of name=value pairs with commas between them"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "must be a list of name=value pairs with commas between them"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "must be a whole number of milliseconds"),
        ("TELEMETRYFLOW_MCP_CLAUDE_MAX_TOKENS", ": claude.max_tokens must be a whole number from 1 to 1000000"),
        ("TELEMETRYFLOW_MCP_LOG_FORMAT", ": logging.format must be one of json, text"),
    ],
)
def test_an_error_never_repeats_the_value(tmp_path: Path, variable: str, sentence: str) -> None:
    environ = {variable: "sk-{}-in-the-wrong-place".format("ant")}  # not in one piece, as a traceback quotes the line

    with pytest.raises(ConfigurationError) as refused:
        load(tmp_path, environ=environ)

    assert str(refused.value) in {f"{variable} {sentence}", f"{variable}{sentence}"}
    assert "sk-ant" not in "".join(traceback.format_exception(refused.value))


def test_unknown_variables_are_named_in_one_warning(tmp_path: Path) -> None:
    environ = {
        "TELEMETRYFLOW_MCP_CLAUDE_MAX_TOKEN": "sk-ant-1",
        "TELEMETRYFLOW_MCP_ZZZ": "2",
        "TELEMETRYFLOW_MCP_CONFIG": "",
        "TELEMETRYFLOW_LICENSE": "of another TelemetryFlow program",
    }

    (warning,) = load(tmp_path, environ=environ).warnings
    assert warning == (
        "these variables mean nothing to this version: TELEMETRYFLOW_MCP_CLAUDE_MAX_TOKEN "
        "(did you mean TELEMETRYFLOW_MCP_CLAUDE_MAX_TOKENS?), TELEMETRYFLOW_MCP_ZZZ"
    )


def test_a_relative_path_starts_where_it_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    in_file = load(tmp_path, "tools: {roots: [data, ~/mine]}\nlogging: {output: ../server.log}").settings
    in_variable = load(tmp_path, environ={"TELEMETRYFLOW_MCP_STORAGE_FOLDER": "state"}).settings

    assert in_file.tools.roots == (tmp_path / "etc" / "data", tmp_path / "home" / "mine")
    assert in_file.logging.output == str(tmp_path / "server.log")
    assert in_variable.storage.folder == tmp_path / "work" / "state"


def test_the_state_folder_is_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))

    assert load(tmp_path).settings.storage.folder == tmp_path / "data" / "tfo-mcp"


@pytest.mark.parametrize(
    ("endpoint", "protocol", "insecure"),
    [
        ("http://collector:4317", "grpc", True),
        ("https://collector:4317", "grpc", False),
        ("https://collector:4318", "http/protobuf", False),
        ("HTTP://collector:4318/", "http/protobuf", True),
        ("https://collector/v1/traces", "http/protobuf", False),
        ("https://collector/", "grpc", False),
        ("collector:4317", "grpc", False),
        ("localhost:4318", "http/protobuf", True),
        ("127.0.0.2:4317", "grpc", True),
        ("[::1]:4318", "http/protobuf", True),
        ("[2001:db8::1]:4317", "grpc", False),
    ],
)
def test_protocol_and_tls_follow_from_the_endpoint(
    tmp_path: Path, endpoint: str, protocol: str, *, insecure: bool
) -> None:
    telemetry = load(tmp_path, environ={"TELEMETRYFLOW_ENDPOINT": endpoint}).settings.telemetry

    assert (telemetry.export_protocol, telemetry.export_insecure) == (protocol, insecure)


def test_what_is_said_of_protocol_and_tls_comes_before_what_follows() -> None:
    telemetry = TelemetrySettings(endpoint="http://collector:4318", protocol="grpc", insecure=False)

    assert (telemetry.export_protocol, telemetry.export_insecure) == ("grpc", False)


def test_short_words_become_the_proper_ones(tmp_path: Path) -> None:
    settings = load(tmp_path, "logging: {level: WARN, format: Text}\ntelemetry: {protocol: http}").settings

    assert (settings.logging.level, settings.logging.format) == ("warning", "text")
    assert settings.telemetry.protocol == "http/protobuf"


@pytest.mark.parametrize(
    "name",
    [f"{section}.{key}" for section, key in ALL_SETTINGS if expected(section, key) == "true or false"],
)
def test_every_switch_takes_the_words_that_version_1_2_took(tmp_path: Path, name: str) -> None:
    variable = next(variables_of(name))

    for word in ("yes", "y", "On", "t", "TRUE", "1"):
        assert attrgetter(name)(load(tmp_path, environ={variable: word}).settings) is True
    for word in ("no", "n", "off", "F", "False", "0"):
        assert attrgetter(name)(load(tmp_path, environ={variable: word}).settings) is False


def test_secrets_are_shown_to_nobody(tmp_path: Path) -> None:
    environ = {
        "ANTHROPIC_API_KEY": "sk-ant-1",
        "TELEMETRYFLOW_API_KEY_SECRET": "tfs_2",
        "TELEMETRYFLOW_HEADERS": "authorization=word3",
    }

    loaded = load(tmp_path, environ=environ)
    shown = masked(loaded.settings)

    assert not [secret for secret in ("sk-ant-1", "tfs_2", "word3") if secret in f"{loaded} {loaded!r} {shown}"]
    assert shown["claude"]["api_key"] == "***"
    assert shown["telemetry"]["api_key_id"] == ""
    assert shown["telemetry"]["headers"] == {"authorization": "***"}
    assert {secret.reveal() for secret in secrets_of(loaded.settings)} == {"sk-ant-1", "tfs_2", "word3"}


def test_a_secret_is_true_when_it_is_set() -> None:
    assert Secret("x")
    assert not Secret("")
