"""`init-config`, `info`, and what `validate` says of a whole installation; each as a person types it."""

from __future__ import annotations

import json
import os
import re
import socket
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

import tfo_mcp
from support.command_line import run
from support.server import environment, serving
from support.sizes import later

KEYS = {
    "ANTHROPIC_API_KEY": "sk-ant-Zm9v-YmFy",
    "TELEMETRYFLOW_API_KEY_ID": "tfk_Zm9vYmFy",
    "TELEMETRYFLOW_API_KEY_SECRET": "tfs_Zm9vYmFy",
    "TELEMETRYFLOW_HEADERS": "authorization=Basic Zm9vYmFyYmF6",
}


def users_file(folder: Path) -> Path:
    return folder / "home" / ".config" / "tfo-mcp" / "config.yaml"


# --- init-config ---


def test_init_config_writes_the_file_that_is_read_for_its_owner_only(tmp_path: Path) -> None:
    written = run(tmp_path, "init-config")

    assert (written.returncode, written.stdout, written.stderr) == (0, f"wrote {users_file(tmp_path)}\n", "")
    assert stat.S_IMODE(users_file(tmp_path).stat().st_mode) == 0o600
    assert [file.name for file in users_file(tmp_path).parent.iterdir()] == ["config.yaml"]
    shown = run(tmp_path, "validate")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.startswith(f"# valid; from {users_file(tmp_path)}\n")


def test_init_config_replaces_a_file_when_forced_only(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("server: {name: Mine}\n")

    refused = run(tmp_path, "init-config", "--output", "mine.yaml")
    kept = file.read_text()
    forced = run(tmp_path, "init-config", "-o", "mine.yaml", "--force")

    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == f"tfo-mcp: {file} is there already; --force replaces it\n"
    assert kept == "server: {name: Mine}\n"
    assert forced.returncode == 0
    assert forced.stdout.endswith(f"It is read when it is named: tfo-mcp serve --config {file}\n")
    assert "Mine" not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_init_config_writes_through_a_link_and_over_files_only(tmp_path: Path) -> None:
    (tmp_path / "real.yaml").touch()
    (tmp_path / "link.yaml").symlink_to("real.yaml")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")

    through = run(tmp_path, "init-config", "--force", "-o", "link.yaml")
    over = run(tmp_path, "init-config", "--force", "-o", "folder")
    onto = run(tmp_path, "init-config", "--force", "-o", "pipe")
    below = run(tmp_path, "init-config", "-o", "real.yaml/x.yaml")

    assert through.returncode == 0
    assert (tmp_path / "link.yaml").is_symlink()
    assert (tmp_path / "real.yaml").read_text().startswith("# Configuration of tfo-mcp")
    assert (over.returncode, onto.returncode, below.returncode) == (1, 1, 1)
    assert (tmp_path / "pipe").is_fifo()
    assert below.stderr.count("\n") == 1


def test_init_config_writes_where_the_variable_says_that_the_file_is(tmp_path: Path) -> None:
    written = run(tmp_path, "init-config", TELEMETRYFLOW_MCP_CONFIG="named.yaml")

    assert written.stdout == f"wrote {tmp_path / 'named.yaml'}\n"
    assert not users_file(tmp_path).exists()


def test_every_setting_of_the_written_file_holds_its_default_when_its_mark_is_taken_away(tmp_path: Path) -> None:
    run(tmp_path, "init-config", "-o", "all.yaml")
    before = run(tmp_path, "validate").stdout
    file = tmp_path / "all.yaml"
    text, count = re.subn(r"^( *)#(?=\w)", r"\1", file.read_text(), flags=re.MULTILINE)
    file.write_text(text)

    after = run(tmp_path, "validate", "--config", "all.yaml")

    assert count > 40
    assert (after.returncode, after.stderr) == (0, "")
    assert after.stdout.splitlines()[1:] == before.splitlines()[1:]


# --- info ---


def test_info_tells_what_a_report_needs(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    shown = run(
        tmp_path, "info", "--json", "--root", "project", TELEMETRYFLOW_ENDPOINT="http://collector:4318/token", **KEYS
    )

    assert (shown.returncode, shown.stderr) == (0, "")
    report = json.loads(shown.stdout)
    assert report["tfo-mcp"] == tfo_mcp.__version__
    assert report["packages"]["mcp"] == version("mcp")
    assert {"anthropic", "msgspec", "opentelemetry-sdk", "sqlalchemy"} <= report["packages"].keys()
    assert report["configuration"] == {
        "file": None,
        "looked_for": [str(users_file(tmp_path)), "/etc/tfo-mcp/config.yaml"],
        "warnings": [],
    }
    assert report["state_folder"] == str(tmp_path / "state")
    assert report["roots"] == [str(tmp_path / "project")]
    assert report["export"] == "collector:4318 (http/protobuf, without TLS)"
    assert report["secrets"] == {
        "claude.api_key": "set",
        "telemetry.api_key_id": "set",
        "telemetry.api_key_secret": "set",
    }
    assert not [key for key in KEYS.values() if key.split()[-1] in shown.stdout]


def test_info_names_the_tools_that_serve_offers(tmp_path: Path) -> None:
    report = yaml.safe_load(run(tmp_path, "info").stdout)

    with serving(tmp_path) as server:
        server.initialize()
        offered = server.call(1, "tools/list")["result"]["tools"]
    assert report["tools"] == [tool["name"] for tool in offered]


def test_info_names_the_file_and_its_warnings(tmp_path: Path) -> None:
    users_file(tmp_path).parent.mkdir(parents=True)
    users_file(tmp_path).write_text("claude: {temperature: 1.0}\n")

    report = yaml.safe_load(run(tmp_path, "info").stdout)

    assert report["configuration"] == {
        "file": str(users_file(tmp_path)),
        "looked_for": [],
        "warnings": ["settings of version 1.2 that have no effect any more: claude.temperature"],
    }
    assert (report["export"], report["recording"]) == (None, True)
    assert set(report["secrets"].values()) == {"not set"}


def test_info_tells_the_versions_although_the_configuration_is_refused(tmp_path: Path) -> None:
    users_file(tmp_path).parent.mkdir(parents=True)
    users_file(tmp_path).write_text("claude:\n  max_tokens: sk-ant-Zm9v-YmFy\n")

    shown = run(tmp_path, "info")

    assert shown.returncode == 3
    report = yaml.safe_load(shown.stdout)
    assert report["packages"]["mcp"] == version("mcp")
    assert report["configuration"] == {
        "error": f"{users_file(tmp_path)}, line 2: claude.max_tokens must be a whole number from 1 to 1000000"
    }


# --- validate: storage ---


def test_validate_makes_nothing_where_there_is_no_storage_yet(tmp_path: Path) -> None:
    assert run(tmp_path, "validate").returncode == 0
    assert not (tmp_path / "state").exists()


def test_validate_leaves_a_database_in_use_as_it_is(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.initialize()
        server.call_tool(1, "claude_conversation", {"message": "hello"})
        assert run(tmp_path, "validate").returncode == 0
        server.ask_whether_alive()
        server.answer_to("alive")


def _database(folder: Path, *statements: str) -> None:
    folder.mkdir()
    connection = sqlite3.connect(folder / "tfo-mcp.db")
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def a_file(folder: Path) -> None:
    folder.touch()


def a_link_to_nowhere(folder: Path) -> None:
    folder.symlink_to("nowhere")


def another_programs_database(folder: Path) -> None:
    _database(folder, "CREATE TABLE theirs (x)")


def a_database_of_a_later_version(folder: Path) -> None:
    _database(folder, "CREATE TABLE alembic_version (version_num)", "INSERT INTO alembic_version VALUES ('9999')")


def a_text(folder: Path) -> None:
    folder.mkdir()
    (folder / "tfo-mcp.db").write_bytes(b"no database at all" * 100)


def a_folder_in_place_of_the_database(folder: Path) -> None:
    (folder / "tfo-mcp.db").mkdir(parents=True)


def a_text_in_place_of_the_audit(folder: Path) -> None:
    folder.mkdir()
    (folder / "audit.db").write_bytes(b"no database at all" * 100)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (a_file, "is not a folder"),
        (a_link_to_nowhere, "is not a folder"),
        (another_programs_database, "belongs to another program"),
        (a_database_of_a_later_version, "update tfo-mcp"),
        (a_text, "is not a database"),
        (a_text_in_place_of_the_audit, "audit.db' cannot be used: it is not a database"),
        (a_folder_in_place_of_the_database, "cannot be opened"),
    ],
)
def test_validate_exits_with_4_where_the_storage_cannot_be_used(
    tmp_path: Path, make: Callable[[Path], None], why: str
) -> None:
    make(tmp_path / "state")
    before = _contents(tmp_path / "state")

    refused = run(tmp_path, "validate")

    assert (refused.returncode, refused.stdout) == (4, "")
    assert why in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert _contents(tmp_path / "state") == before


@pytest.mark.ci
def test_validate_says_that_another_program_keeps_the_database(tmp_path: Path) -> None:
    _database(tmp_path / "state")
    holder = sqlite3.connect(tmp_path / "state" / "tfo-mcp.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")

    refused = run(tmp_path, "validate")
    holder.close()

    assert refused.returncode == 4
    assert "another program has kept it locked for 5 seconds" in refused.stderr


def _contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


# --- every end ---


@pytest.mark.parametrize(
    ("arguments", "variables", "code"),
    [
        (["validate"], {}, 0),
        (["info"], {}, 0),
        (["serve"], {}, 0),  # its input ends at once
        (["init-config", "-o", "."], {}, 1),
        (["validate", "--nonsense"], {}, 2),
        (["serve", "--root"], {}, 2),
        (["validate"], {"TELEMETRYFLOW_MCP_LOG_LEVEL": "loud"}, 3),
        (["serve", "--log-level", "loud"], {}, 3),
        (["validate", "--config", "missing.yaml"], {}, 3),
        (["validate", "--config", "."], {}, 3),
        (["validate", "--root", "/dev/null"], {}, 3),
        (["validate", "--root", ""], {}, 3),
        (["validate"], {"TELEMETRYFLOW_MCP_STORAGE_FOLDER": "/dev/null/state"}, 4),
    ],
)
def test_the_exit_code_says_what_kind_of_end_it_was(
    tmp_path: Path, arguments: list[str], variables: dict[str, str], code: int
) -> None:
    ended = run(tmp_path, *arguments, **variables)

    assert ended.returncode == code, ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_port_that_is_taken_is_exit_5(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert run(tmp_path, "fake-claude", "--port", str(taken.getsockname()[1])).returncode == 5


def test_a_working_directory_that_is_gone_is_said(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    program = "import os; os.rmdir(os.getcwd()); from tfo_mcp.cli import main; main(['validate'])"

    ended = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(tmp_path),
        cwd=gone,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode == 1
    assert ended.stderr == "tfo-mcp: the working directory cannot be used: No such file or directory\n"


# --- what validate refuses, and of which source ---


def test_a_wrong_value_is_refused_by_its_source_whichever_it_is(tmp_path: Path) -> None:
    (tmp_path / "file.yaml").write_text("\nlogging:\n  level: loud\n")
    sentence = "logging.level must be one of critical, debug, error, info, warning"

    in_file = run(tmp_path, "validate", "-c", "file.yaml")
    in_variable = run(tmp_path, "validate", "-c", "file.yaml", TELEMETRYFLOW_MCP_LOG_LEVEL="loud")
    in_flag = run(tmp_path, "validate", "-c", "file.yaml", "--log-level", "loud", TELEMETRYFLOW_MCP_LOG_LEVEL="info")

    assert in_file.stderr == f"tfo-mcp: {tmp_path}/file.yaml, line 3: {sentence}\n"
    assert in_variable.stderr == f"tfo-mcp: TELEMETRYFLOW_MCP_LOG_LEVEL: {sentence}\n"
    assert in_flag.stderr == f"tfo-mcp: the command line: {sentence}\n"


@pytest.mark.parametrize("verb", ["validate", "serve"])
@pytest.mark.parametrize("name", ["/dev/stdout", "/proc/self/fd/1"])
def test_stdout_is_no_log_file_by_another_name_either(tmp_path: Path, verb: str, name: str) -> None:
    if not Path(name).exists():
        pytest.skip("this system does not have that name")

    refused = run(tmp_path, verb, TELEMETRYFLOW_MCP_LOGGING_OUTPUT=name)

    assert (refused.returncode, refused.stdout) == (3, "")
    where = "TELEMETRYFLOW_MCP_LOGGING_OUTPUT: logging.output"
    assert refused.stderr == f"tfo-mcp: {where}: {name!r} is stdout, which is the protocol's\n"


KEYLESS = (
    "TELEMETRYFLOW_MCP_CLAUDE_MAX_TOKENS",
    "TELEMETRYFLOW_HEADERS",
    "OTEL_EXPORTER_OTLP_HEADERS",
    "TELEMETRYFLOW_ENDPOINT",
    "ANTHROPIC_BASE_URL",
    "TELEMETRYFLOW_MCP_LOG_LEVEL",
    "TELEMETRYFLOW_MCP_SERVER_TRANSPORT",
)
"""Variables that are no place for a key."""


@pytest.mark.parametrize(
    ("verb", "variable"),
    [
        *[("validate", variable) for variable in KEYLESS],
        ("serve", KEYLESS[1]),
        ("info", KEYLESS[1]),
        *[later(verb, variable) for verb in ("serve", "info") for variable in KEYLESS if variable != KEYLESS[1]],
    ],
)
def test_no_verb_repeats_a_key_in_the_wrong_variable(tmp_path: Path, verb: str, variable: str) -> None:
    ended = run(tmp_path, verb, **{variable: "Bearer sk-ant-Zm9v-YmFyYmF6cXV4=="})

    assert ended.returncode == 3
    assert "Zm9v" not in ended.stdout + ended.stderr


def test_the_debug_switch_of_version_1_2_still_means_the_log_level(tmp_path: Path) -> None:
    with serving(tmp_path, "--debug") as server:
        server.initialize()
        server.close_input()
        server.wait()
        assert '"level": "debug"' in server.log()


def test_a_file_of_version_1_2_is_served_with_one_warning(tmp_path: Path) -> None:
    config = tmp_path / "old.yaml"
    config.write_text(
        "server: {version: 1.2.0, host: localhost, port: 8080, transport: stdio}\n"
        "claude: {default_model: claude-sonnet-4-20250514, temperature: 1.0}\n"
        "cache: {redis_url: 'redis://:Zm9vYmFy@localhost'}\n"
    )
    with serving(tmp_path, "--config", os.fspath(config)) as server:
        server.initialize()
        server.close_input()
        assert server.wait() == 0
        warnings = [line for line in server.log().splitlines() if '"warning"' in line]
    assert len(warnings) == 1
    assert "server.host, server.port" in warnings[0]
    assert "Zm9vYmFy" not in server.log()


@pytest.mark.parametrize("verb", ["validate", later("serve")])
@pytest.mark.parametrize(
    ("setting", "value", "sentence"),
    [
        ("telemetry.endpoint", "http://collector:99999", "telemetry.endpoint is not an address: "),
        ("telemetry.headers", '{"a b": c}', "telemetry.headers: a header's name has "),
        ("telemetry.api_key_id", '"tfk_\u00e9"', "telemetry.api_key_id: the value for header "),
        ("logging.output", "/no/such/folder/log", "logging.output: cannot open "),
    ],
)
def test_what_can_never_work_is_refused_with_its_line(
    tmp_path: Path, verb: str, setting: str, value: str, sentence: str
) -> None:
    section, key = setting.split(".")
    (tmp_path / "file.yaml").write_text(f"mcp:\n  page_size: 5\n{section}:\n  {key}: {value}\n", "utf-8")

    refused = run(tmp_path, verb, "-c", "file.yaml")

    assert refused.returncode == 3
    assert f"{tmp_path}/file.yaml, line 4: {sentence}" in refused.stdout + refused.stderr
    assert "tfk_" not in refused.stdout + refused.stderr
