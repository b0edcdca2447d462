"""The tool that runs programs: `execute_command`. Only those that the operator names, and never through a shell."""

from __future__ import annotations

import logging
import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tfo_mcp.domain.errors import CommandRefused, ToolFailure
from tfo_mcp.domain.tool import Tool, ToolAnnotations, ToolContext, ToolMode, ToolResult
from tfo_mcp.infrastructure.tools.git import GIT_ENVIRONMENT, git_arguments
from tfo_mcp.infrastructure.tools.processes import Ended, Processes
from tfo_mcp.infrastructure.tools.programs import Program, Programs, safe_path
from tfo_mcp.infrastructure.tools.roots import Roots, quoted
from tfo_mcp.infrastructure.tools.sandbox import NoSandbox, Sandbox

_logger = logging.getLogger(__name__)

_MAX_COMMAND: Final = 65_536
"""Characters of a command, or of one of its words."""
_MAX_WORDS: Final = 1000

_MARGIN: Final = 10.0
"""Seconds that the tool gets beyond the program's, to end it and to say what there was."""

_FROM_THE_SERVER: Final[Mapping[str, re.Pattern[str]]] = {
    **dict.fromkeys(
        ("LANG", "LC_ALL", "LC_CTYPE", "LC_MESSAGES", "LC_NUMERIC", "LC_TIME"), re.compile(r"[\w.@-]{1,64}")
    ),
    "TZ": re.compile(r"\w[\w+/-]{0,63}"),
}
"""Variables that a program gets as the server has them, where they are what they seem: names, and no paths."""

_ALWAYS: Final = {"TERM": "dumb", "NO_COLOR": "1", "PAGER": "cat", "LANG": "C.UTF-8"}

_SHORTEST_SECRET: Final = 6
"""Characters; what is shorter would blot out words that are none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandLimits:
    """What one call may take: seconds, and bytes of stdout and of stderr."""

    timeout: float
    max_output_bytes: int


def command_tools(
    programs: Programs,
    roots: Roots,
    sandbox: Sandbox,
    processes: Processes,
    limits: CommandLimits,
    *,
    secrets: Iterable[str],
) -> list[Tool]:
    """`execute_command`; `secrets` are never shown in what a program says."""
    if isinstance(sandbox, NoSandbox):
        _logger.warning("execute_command runs programs without a sandbox, with all rights of this server")
        if programs.launchers:
            _logger.warning(
                "execute_command: %s can run any other program, and nothing holds them back without a sandbox",
                ", ".join(programs.launchers),
            )
    command = _Command(programs, roots, sandbox, processes, limits, tuple(secrets))
    return [
        Tool(
            name="execute_command",
            title="Run a program",
            description=(
                f"Run one of these programs and get what it says: {programs}. There is no shell: no pipes, "
                f"redirections, variables or patterns. {sandbox.promise} "
                "An exit code other than 0 is a result, not an error."
            ),
            input_schema=_input_schema(limits),
            output_schema=_OUTPUT_SCHEMA,
            run=command.run,
            mode=ToolMode.TASK,
            annotations=ToolAnnotations(read_only=False, destructive=True, idempotent=False, open_world=True),
            timeout=limits.timeout + _MARGIN,
            audited=("command", "working_dir", "timeout"),
        )
    ]


def _input_schema(limits: CommandLimits) -> dict[str, Any]:
    word = {"type": "string", "maxLength": _MAX_COMMAND}
    return {
        "type": "object",
        "properties": {
            "command": {
                "description": "Program and arguments: one text, split into words as a shell would, or the words.",
                "anyOf": [
                    {**word, "minLength": 1},
                    {"type": "array", "items": word, "minItems": 1, "maxItems": _MAX_WORDS},
                ],
            },
            "working_dir": {
                "type": "string",
                "default": ".",
                "description": "The folder to run in, absolute or relative to the first root.",
            },
            "timeout": {
                "type": "number",
                "exclusiveMinimum": 0,
                "description": f"Seconds that it may run, at most {limits.timeout:g}, which is the default.",
            },
        },
        "required": ["command"],
        "additionalProperties": False,
    }


_OUTPUT_SCHEMA: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {
        "exit_code": {
            "type": ["integer", "null"],
            "description": "128 and a signal's number if that ended it; null if its time was over.",
        },
        "stdout": {"type": "string"},
        "stderr": {"type": "string"},
        "truncated": {"type": "boolean", "description": "Whether the middle of stdout or stderr is cut out."},
        "timed_out": {"type": "boolean"},
        "duration": {"type": "number", "description": "Seconds."},
    },
    "required": ["exit_code", "stdout", "stderr", "truncated", "timed_out", "duration"],
    "additionalProperties": False,
}


class _Command:
    def __init__(
        self,
        programs: Programs,
        roots: Roots,
        sandbox: Sandbox,
        processes: Processes,
        limits: CommandLimits,
        secrets: Sequence[str],
    ) -> None:
        self._programs = programs
        self._roots = roots
        self._sandbox = sandbox
        self._processes = processes
        self._limits = limits
        self._secrets = [secret for secret in secrets if len(secret) >= _SHORTEST_SECRET]

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:  # noqa: ARG002  # a cancellation reaches it as one
        word, *rest = _words(arguments["command"])
        program = self._programs.find(word)
        if "git" in program.names:
            rest = git_arguments(rest)
        await self._sandbox.check()
        seconds = min(arguments.get("timeout", self._limits.timeout), self._limits.timeout)
        working_dir = arguments.get("working_dir", ".")
        with self._roots.open(working_dir) as opened:
            if not opened.is_folder:
                raise ToolFailure(f"{quoted(working_dir)} is a file, not a folder to run in")
            folder = os.dup(opened.descriptor)
        try:
            launch = self._sandbox.launch(program, rest, folder, self._environment(program))
            running = self._processes.run(launch, timeout=seconds, max_output=self._limits.max_output_bytes)
            ended = await running
        finally:
            os.close(folder)
        return self._result(word, ended, seconds)

    def _environment(self, program: Program) -> dict[str, str]:
        kept = {
            name: value
            for name, form in _FROM_THE_SERVER.items()
            if (value := os.environ.get(name)) and form.fullmatch(value) and ".." not in value
        }
        environment = {**_ALWAYS, **kept, "PATH": safe_path(self._roots), "HOME": self._sandbox.home}
        if "git" in program.names:
            # git looks for a repository upwards, but not above a root.
            ceilings = ":".join(str(folder.parent) for folder in self._roots.folders)
            environment |= {**GIT_ENVIRONMENT, "GIT_CEILING_DIRECTORIES": ceilings}
        return environment

    def _result(self, word: str, ended: Ended, seconds: float) -> ToolResult:
        timed_out = ended.exit_code is None
        stdout, stderr = self._without_secrets(ended.stdout.text()), self._without_secrets(ended.stderr.text())
        structured = {
            "exit_code": ended.exit_code,
            "stdout": stdout,
            "stderr": stderr,
            "truncated": bool(ended.stdout.cut or ended.stderr.cut),
            "timed_out": timed_out,
            "duration": round(ended.duration, 3),
        }
        parts = [stdout]
        if stderr:
            parts.append(f"[stderr]\n{stderr}")
        if timed_out:
            parts.append(f"[{quoted(word)} did not finish within {seconds:g} s and was stopped]")
        elif ended.exit_code:
            parts.append(f"[exit code {ended.exit_code}]")
        text = "\n".join(part.rstrip("\n") for part in parts if part) or "[no output]"
        return ToolResult(text, structured=structured, is_error=timed_out, timed_out=timed_out)

    def _without_secrets(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def _words(command: str | Sequence[str]) -> list[str]:
    if isinstance(command, str):
        try:
            words = shlex.split(command)
        except ValueError as error:
            raise CommandRefused(
                "the command cannot be split into words: a quote or a backslash is left open"
            ) from error
    else:
        words = list(command)
    if not words:
        raise CommandRefused("the command is empty")
    if len(words) > _MAX_WORDS:
        raise CommandRefused(f"the command has more than {_MAX_WORDS} words")
    for word in words:
        try:
            os.fsencode(word)
        except UnicodeEncodeError as error:
            raise CommandRefused(
                "a word of the command holds half of a surrogate pair, which no argument can"
            ) from error
        if "\0" in word:
            raise CommandRefused("a word of the command holds a NUL character, which no argument can")
    return words
