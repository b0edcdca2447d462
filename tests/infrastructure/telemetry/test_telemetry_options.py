from __future__ import annotations

from typing import Any

import pytest

from tfo_mcp.infrastructure.config import ConfigurationError, Settings, TelemetrySettings
from tfo_mcp.infrastructure.telemetry.options import Target, TelemetryOptions, telemetry_options
from tfo_mcp.infrastructure.telemetry.resource import resource_of


@pytest.mark.parametrize(
    ("given", "target"),
    [
        ({"endpoint": "http://collector:9000"}, Target("collector:9000", "", tls=False)),
        ({"endpoint": "https://collector"}, Target("collector:4317", "", tls=True)),
        ({"endpoint": "collector:4317"}, Target("collector:4317", "", tls=True)),
        ({"endpoint": "collector:4317", "insecure": True}, Target("collector:4317", "", tls=False)),
        ({"endpoint": "http://[::1]:4317"}, Target("[::1]:4317", "", tls=False)),
        ({"endpoint": "https://c/otlp/", "protocol": "http/protobuf"}, Target("c:4318", "/otlp", tls=True)),
        ({"endpoint": "http://c", "protocol": "http", "insecure": True}, Target("c:4318", "", tls=False)),
        ({}, None),
    ],
)
def test_an_endpoint_says_where_and_whether_with_tls(given: dict[str, Any], target: Target | None) -> None:
    assert TelemetryOptions(**given).target() == target


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"endpoint": "ftp://c"}, "telemetry.endpoint must look like http://host:port, not 'ftp://c'"),
        ({"endpoint": "http://"}, "telemetry.endpoint must look like http://host:port, not 'http://'"),
        ({"endpoint": "http://c:port"}, "telemetry.endpoint is not an address"),
        ({"endpoint": "http://c:0"}, "telemetry.endpoint is not an address"),
        ({"key_id": "é", "key_secret": "x"}, "telemetry.api_key_id: the value for header"),
        ({"endpoint": "http://u:secret@c"}, "telemetry.endpoint may hold no user name or password"),
        ({"endpoint": "http://c/path"}, "telemetry.endpoint may have no path with gRPC"),
        ({"endpoint": "https://c", "insecure": True}, "telemetry.endpoint says https:// but"),
        ({"endpoint": "http://c", "insecure": False}, "telemetry.endpoint says http:// but"),
        ({"headers": {"a b": "c"}}, "telemetry.headers: a header's name has letters, digits, '-', '_' and '.' only"),
        ({"headers": {"a": "secret\r\nx: y"}}, "the value for header 'a' may hold printable ASCII only"),
    ],
)
def test_what_could_never_work_is_refused_in_one_sentence_without_secrets(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match="telemetry") as refused:
        TelemetryOptions(**given)
    assert sentence in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("service.name", "service_name"),
        ("service.namespace", "service_namespace"),
        ("deployment.environment.name", "environment"),
    ],
)
def test_a_resource_attribute_that_has_a_setting_of_its_own_is_refused(name: str, setting: str) -> None:
    settings = Settings(telemetry=TelemetrySettings(resource_attributes={name: "x"}))
    with pytest.raises(ConfigurationError) as refused:
        telemetry_options(settings)
    assert str(refused.value) == f"telemetry.resource_attributes: {name} is set with telemetry.{setting}"


def test_what_the_user_says_of_the_process_comes_before_what_is_found_and_behind_the_settings() -> None:
    given = {"service.instance.id": "pod-7", "team": "blue", "service.version": "0", "telemetry.sdk.name": "other"}
    resource = resource_of(TelemetryOptions(service_version="9.9", resource_attributes=given))
    assert resource["service.instance.id"] == "pod-7"
    assert resource["team"] == "blue"
    assert (resource["service.version"], resource["telemetry.sdk.name"]) == ("9.9", "tfo_mcp")


def test_two_processes_have_two_instance_ids() -> None:
    first, second = (resource_of(TelemetryOptions())["service.instance.id"] for _ in range(2))
    assert first != second


def test_the_repr_of_options_shows_no_secret() -> None:
    secrets: dict[str, Any] = {
        "headers": {"authorization": "Bearer hush"},
        "key_id": "tfk_hush",
        "key_secret": "tfs_hush",
    }
    assert "hush" not in repr(TelemetryOptions(endpoint="http://c", **secrets))
