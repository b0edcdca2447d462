"""Settings from environment variables and from the command line.

An empty variable is one that is not set: clients pass `"X": "${X}"` on without a value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from tfo_mcp.infrastructure.config import file
from tfo_mcp.infrastructure.config.given import Given, Sayings
from tfo_mcp.infrastructure.config.legacy import RETIRED, RETIRED_VARIABLES
from tfo_mcp.infrastructure.config.settings import ConfigurationError, all_names
from tfo_mcp.infrastructure.telemetry.conventions import ENVIRONMENT, SERVICE_NAME, SERVICE_NAMESPACE

PREFIX = "TELEMETRYFLOW_MCP_"
_LISTS = frozenset({"claude.allow_tools", "tools.roots", "tools.execute_command.allow"})
_MAPPINGS = frozenset({"telemetry.headers", "telemetry.resource_attributes"})
_JSON = frozenset({"claude.prices", "telemetry.redact_patterns"})

_FOREIGN = {
    "ANTHROPIC_API_KEY": "claude.api_key",
    "ANTHROPIC_BASE_URL": "claude.base_url",
    "ANTHROPIC_VERTEX_PROJECT_ID": "claude.vertex_project",
    "AWS_REGION": "claude.aws_region",
    "AWS_DEFAULT_REGION": "claude.aws_region",
    "CLOUD_ML_REGION": "claude.vertex_region",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "telemetry.endpoint",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "telemetry.protocol",
    "OTEL_EXPORTER_OTLP_INSECURE": "telemetry.insecure",
    "OTEL_EXPORTER_OTLP_COMPRESSION": "telemetry.compression",
    "OTEL_SERVICE_NAME": "telemetry.service_name",
}
"""Variables of others that mean what the setting means."""

RESOURCE_SETTINGS = {
    SERVICE_NAME: "telemetry.service_name",
    SERVICE_NAMESPACE: "telemetry.service_namespace",
    ENVIRONMENT: "telemetry.environment",
}
"""Resource attributes that have a setting of their own."""


def variables_of(name: str) -> Iterator[str]:
    """The variables that set `name` (`section.key`), the strongest first; those with another form excepted."""
    section, _, key = name.upper().partition(".")
    key = key.replace(".", "_")  # of a section inside the section
    yield f"{PREFIX}{section}_{key}"
    if section == "LOGGING":
        yield f"{PREFIX}LOG_{key}"
    elif section == "TELEMETRY":
        yield f"TELEMETRYFLOW_{key}"
    yield from (variable for variable, setting in _FOREIGN.items() if setting == name)


def from_flags(flags: Mapping[str, object], cwd: Path) -> Sayings:
    """From `section.key` to a value, as the command line gave it; None is a flag that was not given."""
    return {
        name: Given(_split(name, value, "the command line"), "the command line", cwd)
        for name, value in flags.items()
        if value is not None
    }


def from_environment(environ: Mapping[str, str], cwd: Path) -> Sayings:
    """What the variables say, the project's own before those of OpenTelemetry and Anthropic.

    Raises:
        ConfigurationError: a list of `name=value` pairs or a number of milliseconds is none.
    """
    given = dict(_from_forms_of_their_own(environ, cwd))
    for name in _names():
        for variable in variables_of(name):
            if text := environ.get(variable, "").strip():  # a key from a file often ends in a line feed
                given[name] = Given(_split(name, text, variable), variable, cwd)
                break
    for variable, name in RETIRED_VARIABLES.items():
        if text := environ.get(variable):
            given[name] = Given(text, variable, cwd)
    return given


def unknown_variables_warning(environ: Mapping[str, str]) -> str | None:
    """One sentence that names each `TELEMETRYFLOW_MCP_…` variable which means nothing here."""
    given = {variable.removeprefix(PREFIX) for variable in environ if variable.startswith(PREFIX)}
    if not given:
        return None
    variables = {file.VARIABLE, *RETIRED_VARIABLES, *(variable for name in _names() for variable in variables_of(name))}
    known = {variable.removeprefix(PREFIX) for variable in variables if variable.startswith(PREFIX)}
    if not (unknown := sorted(given - known)):
        return None
    from difflib import get_close_matches

    words: list[str] = []
    for name in unknown:
        near = get_close_matches(name, known, n=1)
        words.append(f"{PREFIX}{name}" + (f" (did you mean {PREFIX}{near[0]}?)" if near else ""))
    return f"these variables mean nothing to this version: {', '.join(words)}"


def _names() -> Iterator[str]:
    yield from all_names()
    yield from (f"{section}.{key}" for section, keys in RETIRED.items() for key in keys)


def _split(name: str, value: object, origin: str) -> object:
    if isinstance(value, str) and name in _LISTS:
        return [] if value.strip() == "[]" else [item.strip() for item in value.split(",") if item.strip()]
    if isinstance(value, str) and name in _MAPPINGS:
        return _pairs(value, origin)
    if isinstance(value, str) and name in _JSON:
        with suppress(
            msgspec.DecodeError, UnicodeError
        ):  # what is no JSON stays a text, which is refused as any other wrong value
            return msgspec.json.decode(value)
    return value


def _pairs(text: str, origin: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for item in filter(None, map(str.strip, text.split(","))):
        name, equals, value = item.partition("=")
        if not equals or not name.strip():
            raise ConfigurationError(f"{origin} must be a list of name=value pairs with commas between them")
        pairs[name.strip()] = value.strip()
    return pairs


def _from_forms_of_their_own(environ: Mapping[str, str], cwd: Path) -> Iterator[tuple[str, Given]]:
    if environ.get(variable := "OTEL_SDK_DISABLED", "").lower() == "true":
        yield "telemetry.enabled", Given(value=False, origin=variable, base=cwd)
    if text := environ.get(variable := "OTEL_EXPORTER_OTLP_TIMEOUT"):
        try:
            yield "telemetry.timeout", Given(int(text) / 1000, variable, cwd)
        except ValueError:
            raise ConfigurationError(f"{variable} must be a whole number of milliseconds") from None
    if text := environ.get(variable := "OTEL_EXPORTER_OTLP_HEADERS"):
        yield "telemetry.headers", Given(_decoded(text, variable), variable, cwd)
    if text := environ.get(variable := "OTEL_RESOURCE_ATTRIBUTES"):
        attributes = _decoded(text, variable)
        for attribute, name in RESOURCE_SETTINGS.items():
            if attribute in attributes:
                yield name, Given(attributes.pop(attribute), variable, cwd)
        yield "telemetry.resource_attributes", Given(attributes, variable, cwd)


def _decoded(text: str, variable: str) -> dict[str, str]:
    """Pairs in OpenTelemetry's form, whose values are percent-encoded."""
    from urllib.parse import unquote

    return {name: unquote(value) for name, value in _pairs(text, variable).items()}
