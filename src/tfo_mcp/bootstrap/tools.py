"""The tools' part of the composition root: which there are, and what they share."""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from tfo_mcp.bootstrap.telemetry import tools_over_recordings
from tfo_mcp.domain.errors import ToolFailure
from tfo_mcp.domain.tool import Tool, ToolRegistry
from tfo_mcp.infrastructure.config import Loaded, secrets_of
from tfo_mcp.infrastructure.config.file import default_paths
from tfo_mcp.infrastructure.tools.attachments import AttachmentLimits, Attachments
from tfo_mcp.infrastructure.tools.command import CommandLimits, command_tools
from tfo_mcp.infrastructure.tools.conversation_records import conversation_record_tools
from tfo_mcp.infrastructure.tools.conversations import conversation_tools
from tfo_mcp.infrastructure.tools.echo import echo_tools
from tfo_mcp.infrastructure.tools.files import FileLimits, file_tools
from tfo_mcp.infrastructure.tools.own_environment import hide_from_others
from tfo_mcp.infrastructure.tools.processes import Processes
from tfo_mcp.infrastructure.tools.programs import Programs
from tfo_mcp.infrastructure.tools.roots import Roots, own_program, roots_in_force
from tfo_mcp.infrastructure.tools.sandbox import Bubblewrap, NoSandbox, Sandbox
from tfo_mcp.infrastructure.tools.system import system_tools
from tfo_mcp.infrastructure.tools.writing import writing_tools

_logger = logging.getLogger(__name__)

_TURN_MARGIN = 10.0
"""Seconds that the tool gets beyond `claude.turn_timeout`, once to wait and once to work, to store how it ended."""


class Toolbox:
    """The tools of one server.

    Attributes:
        roots: the folders that they may touch.
        file_limits: what one call gives of them.
        processes: the programs that they run.
        blocking: the threads of those that may block.
    """

    def __init__(self, loaded: Loaded, *, cwd: Path) -> None:
        settings = self._settings = loaded.settings
        self.roots = Roots(
            roots_in_force(settings.tools.roots, cwd), denied=_own_files(loaded), unchanged=own_program()
        )
        self.file_limits = FileLimits(
            max_read_bytes=settings.tools.max_read_bytes, max_entries=settings.tools.max_entries
        )
        self.blocking = ThreadPoolExecutor(settings.tools.threads, thread_name_prefix="tool")
        self.processes = Processes(settings.tools.threads)
        in_bubblewrap = settings.tools.execute_command.sandbox == "bubblewrap"
        self._sandbox: Sandbox = Bubblewrap(self.roots, self.processes) if in_bubblewrap else NoSandbox()

    def tools(self) -> list[Tool]:
        """All that these settings allow."""
        settings = self._settings
        return [
            *echo_tools(),
            *file_tools(self.roots, self.file_limits),
            *writing_tools(self.roots, max_bytes=settings.tools.max_write_bytes),
            *self._command_tools(),
            *system_tools(self.roots),
            *conversation_tools(
                self._attachments(),
                default_model=settings.claude.default_model,
                has_key=settings.claude.is_configured,
                max_message=settings.mcp.max_message_size,
                timeout=2 * settings.claude.turn_timeout + _TURN_MARGIN,
            ),
            *conversation_record_tools(max_page_bytes=settings.tools.max_page_bytes),
            *tools_over_recordings(settings),
        ]

    def _attachments(self) -> Attachments:
        claude = self._settings.claude
        limits = AttachmentLimits(max_bytes=claude.max_attachment_bytes, max_count=claude.max_attachments)
        return Attachments(self.roots, limits, self.blocking)

    def for_claude(self, tools: ToolRegistry) -> ToolRegistry:
        """Those of `tools` that Claude may use in a turn: `claude.allow_tools`, or those that only read."""
        allowed = self._settings.claude.allow_tools
        offered = [tool for tool in tools if tool.for_claude]
        if allowed is None:
            return ToolRegistry(tool for tool in offered if tool.annotations.read_only)
        if unknown := [name for name in allowed if name not in {tool.name for tool in offered}]:
            _logger.warning("claude.allow_tools: no tool that Claude could use is called %s", ", ".join(unknown))
        return ToolRegistry(tool for tool in offered if tool.name in allowed)

    async def warm_up(self) -> None:
        """Try the sandbox, so that the first command does not wait for that."""
        if self._settings.tools.execute_command.allow:
            with suppress(ToolFailure):  # it has logged it, and says it to whoever needs it
                await self._sandbox.check()

    def _command_tools(self) -> list[Tool]:
        command = self._settings.tools.execute_command
        if not command.allow:
            return []
        if os.name != "posix":
            _logger.warning("execute_command is off: it needs process groups, which this platform does not have")
            return []
        secrets = [secret.reveal() for secret in secrets_of(self._settings)]
        hide_from_others(secrets)
        return command_tools(
            Programs(command.allow, self.roots),
            self.roots,
            self._sandbox,
            self.processes,
            CommandLimits(timeout=command.timeout, max_output_bytes=command.max_output_bytes),
            secrets=secrets,
        )


def offered_tools(loaded: Loaded, *, cwd: Path) -> ToolRegistry:
    """The tools that a server would offer."""
    return ToolRegistry(Toolbox(loaded, cwd=cwd).tools() if loaded.settings.mcp.enable_tools else ())


def _own_files(loaded: Loaded) -> list[Path]:
    """What tools never touch: a file that is not there yet too, for the next start would read it."""
    settings = loaded.settings
    folders = (path.parent for path in default_paths())
    known = (settings.storage.folder, loaded.source, settings.logging.file, *folders)
    return [path for path in known if path is not None]
