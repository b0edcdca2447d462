from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from tfo_mcp.application.ports import TraceContext, current_operation
from tfo_mcp.infrastructure.config import (
    ClaudeSettings,
    ConfigurationError,
    LoggingSettings,
    Secret,
    Settings,
    TelemetrySettings,
)
from tfo_mcp.infrastructure.logs import configure_logging, report_unforeseen

log = logging.getLogger("tfo_mcp.somewhere")


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root, project = logging.root, logging.getLogger("tfo_mcp")
    before = (list(root.handlers), root.level, project.level)
    yield
    for handler in set(root.handlers) - set(before[0]):
        root.removeHandler(handler)
        handler.close()
    root.setLevel(before[1])
    project.setLevel(before[2])


def flushed() -> None:
    for handler in logging.root.handlers:
        handler.flush()


def records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_record_is_one_json_object_on_stderr_and_nothing_on_stdout(capfd: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings())

    log.warning("took %d s", 3, extra={"tool": "echo"})
    flushed()

    written = capfd.readouterr()
    (record,) = records(written.err)
    assert record.pop("timestamp").endswith("+00:00")
    assert record == {"level": "warning", "logger": "tfo_mcp.somewhere", "event": "took 3 s", "tool": "echo"}
    assert written.out == ""


def test_a_record_has_the_ids_of_the_operation_in_which_it_was_logged(capfd: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings())

    token = current_operation.set(TraceContext(0xA1, 0xB2))
    log.warning("within")
    current_operation.reset(token)
    log.warning("without")
    flushed()

    within, without = records(capfd.readouterr().err)
    assert (within["trace_id"], within["span_id"]) == (f"{0xA1:032x}", f"{0xB2:016x}")
    assert without.keys().isdisjoint({"trace_id", "span_id"})


def test_libraries_are_heard_from_warnings_up_and_the_project_from_its_level(
    capfd: pytest.CaptureFixture[str],
) -> None:
    configure_logging(Settings(logging=LoggingSettings(level="debug")))

    log.debug("mine")
    logging.getLogger("library").info("chatter")
    logging.getLogger("library").warning("worth it")
    flushed()

    assert [record["event"] for record in records(capfd.readouterr().err)] == ["mine", "worth it"]


def test_below_the_level_nothing_is_written(capfd: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings(logging=LoggingSettings(level="error")))

    log.warning("mine")
    logging.getLogger("library").warning("another's")
    flushed()

    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("style", ["json", "text"])
def test_secrets_are_blotted_out_wherever_they_stand(
    capfd: pytest.CaptureFixture[str], style: Literal["json", "text"]
) -> None:
    settings = Settings(
        claude=ClaudeSettings(api_key=Secret("an-odd-kéy-of-a-gateway")),
        telemetry=TelemetrySettings(headers={"authorization": Secret('quoted"password')}),
        logging=LoggingSettings(format=style),
    )
    configure_logging(settings)

    log.info("key sk-ant-api03-abc and tfs_0123", extra={"sent": "Authorization: Bearer abcdefghijklmnop"})
    log.info("at https://user:hunter2@host/path", extra={"deep": {"in": ['quoted"password']}})
    try:
        int(settings.claude.api_key.reveal())
    except ValueError:
        log.exception("it failed")
    flushed()

    written = capfd.readouterr().err
    assert not [
        secret
        for secret in ("sk-ant", "tfs_", "abcdefgh", "hunter2", "password", "an-odd")
        if secret in written.replace("log.info", "")
    ]
    assert written.count("***") >= 6


def test_nobody_can_forge_a_line_of_the_text_log(capfd: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings(logging=LoggingSettings(format="text")))

    log.warning("named %s", "a\nforged\x1b[2J", extra={"value": "b\nforged"})
    flushed()

    (line,) = capfd.readouterr().err.splitlines()
    assert "a\\x0aforged\\x1b[2J" in line
    assert "b\\x0aforged" in line


@pytest.mark.parametrize("style", ["json", "text"])
def test_an_unforeseen_error_is_logged_with_its_id_and_traceback(
    capfd: pytest.CaptureFixture[str], style: Literal["json", "text"]
) -> None:
    configure_logging(Settings(logging=LoggingSettings(format=style)))

    try:
        int("inner text")
    except ValueError as error:
        report_unforeseen("0123abcd", error)
    flushed()

    written = capfd.readouterr().err
    assert "error" in written
    assert "0123abcd" in written
    assert "test_logs.py" in written
    assert "literal for int() with base 10: 'inner text'" in written


def test_a_record_that_cannot_be_rendered_harms_no_other(capfd: pytest.CaptureFixture[str]) -> None:
    class Broken:
        def __repr__(self) -> str:
            raise ValueError("no repr")

    configure_logging(Settings())

    log.warning("first", extra={"value": Broken()})
    logging.root.handlers[-1].handle(logging.makeLogRecord({"msg": "%d is no number", "args": ("a word",)}))
    log.warning("last")
    flushed()

    first, *others = capfd.readouterr().err.splitlines()
    assert first == "a record of tfo_mcp.somewhere cannot be rendered: ValueError"
    assert [json.loads(line)["event"] for line in others] == ["%d is no number", "last"]


def test_a_log_file_is_the_users_own_and_is_appended_to(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "server.log"
    for event in ("first", "second"):
        configure_logging(Settings(logging=LoggingSettings(output=str(file))))
        log.warning(event)
    flushed()

    assert [record["event"] for record in records(file.read_text())] == ["first", "second"]
    assert file.stat().st_mode & 0o777 == 0o600
    assert capfd.readouterr().err == ""


def test_a_log_file_that_cannot_be_opened_is_an_error_of_configuration(tmp_path: Path) -> None:
    file = tmp_path / "missing" / "server.log"

    with pytest.raises(ConfigurationError) as refused:
        configure_logging(Settings(logging=LoggingSettings(output=str(file))))

    assert str(refused.value) == f"logging.output: cannot open '{file}': No such file or directory"


def test_what_does_not_fit_the_backlog_is_dropped_and_counted(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    configure_logging(Settings(logging=LoggingSettings(output=str(pipe))))
    emitted = 12_000

    for number in range(emitted):
        log.warning("record %d", number)
    os.set_blocking(reader, True)
    text = b""
    while b"record 9000" not in text:
        text += os.read(reader, 65_536)
    log.warning("the end")
    while b"the end" not in text:
        text += os.read(reader, 65_536)
    os.close(reader)

    written = records(text.decode())
    dropped = sum(record.get("dropped", 0) for record in written)
    assert dropped > 0
    assert len(written) + dropped == emitted + 1


def test_a_client_that_does_not_read_stderr_keeps_neither_the_program_nor_its_exit() -> None:
    program = (
        "import logging\n"
        "from tfo_mcp.infrastructure import config, logs\n"
        "logs.configure_logging(config.Settings())\n"
        "for _ in range(2000): logging.getLogger('tfo_mcp').info('x' * 200)\n"
        "print('done', flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "done\n"
        assert process.wait(timeout=30) == 0


def test_what_was_logged_last_is_written_before_a_normal_exit() -> None:
    program = (
        "import logging\n"
        "from tfo_mcp.infrastructure import config, logs\n"
        "logs.configure_logging(config.Settings())\n"
        "logging.getLogger('tfo_mcp').error('the last words')\n"
    )

    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)

    assert "the last words" in ended.stderr
