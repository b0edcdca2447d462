"""The verbs as a person types them; `serve` has its own tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import tfo_mcp
from support.command_line import run
from support.server import environment, serving
from support.sizes import later


def test_version_is_said_in_one_place(tmp_path: Path) -> None:
    assert run(tmp_path, "--version").stdout.strip() == f"tfo-mcp, version {tfo_mcp.__version__}"


def test_no_module_is_taken_from_the_working_directory(tmp_path: Path) -> None:
    for name in ("click.py", "json.py"):
        (tmp_path / name).write_text("raise SystemExit(9)")

    assert run(tmp_path, "validate").returncode == 0


def test_help_names_every_verb(tmp_path: Path) -> None:
    text = run(tmp_path, "--help").stdout
    assert all(verb in text for verb in ("serve", "validate", "fake-claude", "demo"))


def test_without_a_verb_help_is_shown(tmp_path: Path) -> None:
    shown = run(tmp_path)
    assert "Usage:" in shown.stdout + shown.stderr
    assert "serve" in shown.stdout + shown.stderr


def test_an_unknown_verb_is_a_usage_error(tmp_path: Path) -> None:
    assert run(tmp_path, "conquer").returncode == 2


def test_validate_shows_what_is_in_force_and_no_secret(tmp_path: Path) -> None:
    shown = run(
        tmp_path,
        "validate",
        "--root",
        "here",
        ANTHROPIC_API_KEY="sk-ant-secret",
        TELEMETRYFLOW_ENDPOINT="localhost:4317",
    )
    assert shown.returncode == 0
    assert "sk-ant-secret" not in shown.stdout + shown.stderr
    settings = yaml.safe_load(shown.stdout)
    assert settings["claude"]["api_key"] == "***"
    assert settings["telemetry"]["endpoint"] == "localhost:4317"
    assert settings["tools"]["roots"] == [str(tmp_path / "here")]


def test_what_validate_refuses_serve_refuses_with_the_same_sentence(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("mcp:\n  tool_timeot: 3\n")
    validated = run(tmp_path, "validate", "--config", str(config))
    served = run(tmp_path, "serve", "--config", str(config))
    assert validated.returncode == served.returncode == 3
    assert validated.stderr == served.stderr
    assert "config.yaml" in served.stderr
    assert "line 2" in served.stderr
    assert "tool_timeout" in served.stderr
    assert served.stdout == ""


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"telemetry": {"endpoint": "http://h:99999"}}, "telemetry.endpoint"),
        later({"telemetry": {"endpoint": "http://h", "insecure": False}}, "telemetry.insecure"),
        later({"telemetry": {"endpoint": "http://h/path", "protocol": "grpc"}}, "telemetry.endpoint"),
        ({"telemetry": {"headers": {"two words": "x"}}}, "telemetry.headers"),
        later({"telemetry": {"enabled": False, "headers": {"name": "two\nlines"}}}, "header 'name'"),
        ({"logging": {"output": "nowhere/log"}}, "logging.output"),
    ],
)
def test_what_serve_would_meet_later_validate_refuses_with_its_sentence(
    tmp_path: Path, settings: object, named: str
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(settings))
    validated = run(tmp_path, "validate", "--config", str(config))
    served = run(tmp_path, "serve", "--config", str(config))
    assert (validated.returncode, validated.stdout) == (served.returncode, served.stdout) == (3, "")
    assert validated.stderr == served.stderr
    assert named in validated.stderr
    assert validated.stderr.count("\n") == 1


def test_validate_leaves_no_log_file_and_changes_none(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert run(tmp_path, "validate", TELEMETRYFLOW_MCP_LOG_OUTPUT=str(log)).returncode == 0
    assert not log.exists()
    log.write_text("a line of before\n")
    assert run(tmp_path, "validate", TELEMETRYFLOW_MCP_LOG_OUTPUT=str(log)).returncode == 0
    assert log.read_text() == "a line of before\n"


def test_validate_needs_no_server(tmp_path: Path) -> None:
    script = """
import sys
from tfo_mcp.cli import main
main(["validate"], standalone_mode=False)
print(sorted({"mcp", "pydantic", "sqlalchemy", "tfo_mcp.bootstrap"} & set(sys.modules)), file=sys.stderr)
"""
    shown = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(tmp_path),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert shown.stderr == "[]\n"


def test_an_endpoint_that_can_never_work_is_a_configuration_error(tmp_path: Path) -> None:
    refused = run(tmp_path, "serve", TELEMETRYFLOW_ENDPOINT="localhost:99999")
    assert refused.returncode == 3
    assert "telemetry" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_fake_claude_refuses_the_network(tmp_path: Path) -> None:
    refused = run(tmp_path, "fake-claude", "--host", "0.0.0.0")  # noqa: S104  # to see it refused
    assert refused.returncode == 2
    assert "loopback" in refused.stderr


def test_fake_claude_says_where_it_answers_and_ends_on_a_signal(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "tfo_mcp", "fake-claude"],
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        base_url = next(word for word in first.split() if word.startswith("http://127.0.0.1:")).rstrip(",")
        with serving(
            tmp_path / "server", env={"ANTHROPIC_API_KEY": "any", "TELEMETRYFLOW_MCP_CLAUDE_BASE_URL": base_url}
        ) as server:
            server.initialize()
            assert "simulated" in server.call_tool(1, "claude_conversation", {"message": "hello"})["content"][0]["text"]
        process.send_signal(signal.SIGINT)
        process.wait(20)


def test_fake_claude_names_the_line_of_a_wrong_script(tmp_path: Path) -> None:
    script = tmp_path / "script.yaml"
    script.write_text("replies:\n  - {txt: hello}\n")
    refused = run(tmp_path, "fake-claude", "--script", str(script))
    assert refused.returncode == 3
    assert "line 2" in refused.stderr


def test_the_demonstration_shows_what_it_promises(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# A project\n")
    shown = subprocess.run(
        [sys.executable, "-m", "tfo_mcp", "demo"],
        env={k: v for k, v in {**os.environ, **environment(tmp_path)}.items() if k != "ANTHROPIC_API_KEY"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert shown.returncode == 0, shown.stdout + shown.stderr
    for promised in (
        "claude_conversation",  # lists the tools
        "(README.md)  # A project",  # reads a real file
        "isError",  # a call that fails
        "cancelled by the client",
        "simulated: ANTHROPIC_API_KEY is not set",
        "2 tool calls",
        "└─ anthropic.messages.create",  # a trace tree
        "tokens in",
    ):
        assert promised in shown.stdout, f"{promised!r} is not in:\n{shown.stdout}"
