"""`write_file` from outside."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.bubblewrap import SANDBOXES, require
from support.server import REVISIONS, eventually, serving
from support.sizes import later

MIB = 1024 * 1024
LARGE = {
    "TELEMETRYFLOW_MCP_TOOLS_MAX_WRITE_BYTES": str(64 * MIB),
    "TELEMETRYFLOW_MCP_MCP_MAX_MESSAGE_SIZE": str(128 * MIB),
}


@pytest.mark.behaviour("tools.acting.write-file")
@pytest.mark.parametrize("revision", [*map(later, REVISIONS[:-2]), *REVISIONS[-2:]])
def test_a_file_is_written_and_read_back(tmp_path: Path, revision: str) -> None:
    with serving(tmp_path) as server:
        server.begin(revision)

        written = server.call_tool(1, "write_file", {"path": "a/b.txt", "content": "hé\n", "create_dirs": True})
        read = server.call_tool(2, "read_file", {"path": "a/b.txt"})

    assert written["content"][0]["text"] == "created 'a/b.txt', 4 bytes"
    assert read["content"][0]["text"] == "hé\n"


@pytest.mark.behaviour("tools.list.annotations")
def test_it_is_told_that_it_changes_what_it_finds(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.initialize()
        [tool] = [t for t in server.call(1, "tools/list")["result"]["tools"] if t["name"] == "write_file"]

    assert tool["annotations"] == {
        "readOnlyHint": False,
        "destructiveHint": True,
        "idempotentHint": True,
        "openWorldHint": False,
    }


@pytest.mark.behaviour("tools.access.own-files")
def test_the_servers_own_files_are_refused_in_a_root_around_them(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"tools:\n  roots: [{tmp_path}]\nlogging:\n  output: {tmp_path}/server.log\n")
    home = tmp_path / "home"
    with serving(tmp_path, "--config", str(config)) as server:
        server.initialize()
        eventually((tmp_path / "state" / "audit.db").exists)

        for path in (
            config,
            tmp_path / "server.log",
            tmp_path / "state" / "audit.db",
            tmp_path / "state" / "new",
            home / ".config" / "tfo-mcp" / "config.yaml",
        ):
            result = server.call_tool(str(path), "write_file", {"path": str(path), "content": "x", "create_dirs": True})
            assert "is one of the server's own files" in result["content"][0]["text"]

    assert not (home / ".config" / "tfo-mcp").exists()


@pytest.mark.behaviour("tools.access.own-files")
@SANDBOXES
def test_what_the_next_start_would_run_is_not_changed_in_a_root_around_it(tmp_path: Path, sandbox: str) -> None:
    require(sandbox)
    work = tmp_path / "work"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", work / "sub" / ".venv"], check=True)
    [packages] = (work / "sub" / ".venv").glob("lib/python*/site-packages")
    (packages / "here.pth").write_text("\n".join(path for path in sys.path if path))
    settings = {
        "TELEMETRYFLOW_MCP_TOOLS_EXECUTE_COMMAND_ALLOW": "touch,mv",
        "TELEMETRYFLOW_MCP_TOOLS_EXECUTE_COMMAND_SANDBOX": sandbox,
    }
    command = (str(work / "sub" / ".venv" / "bin" / "python"), "-m", "tfo_mcp", "serve")
    with serving(tmp_path, env=settings, command=command) as server:
        server.initialize()
        trap = str(packages / "sitecustomize.py")
        written = server.call_tool(1, "write_file", {"path": trap, "content": "raise SystemExit"})
        read = server.call_tool(2, "read_file", {"path": str(packages / "here.pth")})
        if sandbox == "bubblewrap":
            for words in (["touch", trap], ["mv", "sub", "other"], ["mv", "sub/.venv", "other"]):
                assert server.call_tool(str(words), "execute_command", {"command": words})["structuredContent"][
                    "exit_code"
                ]

    assert "is part of the server's own program" in written["content"][0]["text"]
    assert not read.get("isError")
    assert not Path(trap).exists()


@pytest.mark.behaviour("tools.acting.write-file")
def test_a_kill_in_the_middle_of_a_write_leaves_the_old_file(tmp_path: Path) -> None:
    with serving(tmp_path, env=LARGE) as server:
        server.initialize()
        work = tmp_path / "work"
        server.call_tool(1, "write_file", {"path": "file", "content": "old"})

        server.request(
            2, "tools/call", {"name": "write_file", "arguments": {"path": "file", "content": "n" * 64 * MIB}}
        )
        eventually(lambda: any(path.name.startswith(".tfo-mcp-") for path in work.iterdir()))
        server.process.kill()
        server.wait()

    assert (work / "file").read_text() in {"old", "n" * 64 * MIB}
