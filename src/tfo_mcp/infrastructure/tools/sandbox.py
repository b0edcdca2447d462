"""What holds a program back: bubblewrap, or nothing where the operator said so.

In bubblewrap a program sees the file system read-only, with the roots writable except for the server's own program,
the server's own files hidden, and `/tmp` and `/run` (where sockets of other services are) its own; it has no network,
and dies with the server.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

from tfo_mcp.domain.errors import ToolFailure
from tfo_mcp.infrastructure.tools.processes import MARK, Launch, Processes, new_mark
from tfo_mcp.infrastructure.tools.programs import Program, find_program
from tfo_mcp.infrastructure.tools.roots import Roots

_logger = logging.getLogger(__name__)

_OF_ITS_OWN: Final = ("/tmp", "/run")  # noqa: S108  # these are the sandbox's, empty

_ISOLATION: Final = ("--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL")

_ATTEMPT: Final = 10.0
"""Seconds that the attempt whether bubblewrap works may take."""

_WITHOUT: Final = (
    "or set tools.execute_command.sandbox to none, to run programs with all rights that tfo-mcp itself has; "
    "then restart tfo-mcp"
)


class Sandbox(Protocol):
    """How a program is run."""

    promise: str
    """What it may do there, for whoever chooses tools."""
    home: str
    """HOME of a program."""

    async def check(self) -> None:
        """Make sure that it works.

        Raises:
            ToolFailure: it does not, and what to do about it.
        """
        ...

    def launch(
        self, program: Program, arguments: Sequence[str], descriptor: int, environment: Mapping[str, str]
    ) -> Launch:
        """How to run `program` in the folder that is open as `descriptor`."""
        ...


class NoSandbox:
    """Nothing holds a program back but what its user may do."""

    promise = "It runs without a sandbox, with all rights of this server."
    home = "/nonexistent"

    async def check(self) -> None:
        """It always works."""

    def launch(
        self, program: Program, arguments: Sequence[str], descriptor: int, environment: Mapping[str, str]
    ) -> Launch:
        """As it is, in the folder itself, whatever is at its path by now."""
        mark = new_mark()
        return Launch(
            executable=program.path,
            words=[program.path.name, *arguments],
            folder=_path_of(descriptor, follow=False),
            environment={**environment, MARK: mark},
            mark=mark,
        )


class Bubblewrap:
    """bubblewrap, where it is installed and works.

    Args:
        roots: writable inside; what they deny is hidden.
        processes: runs the one attempt whether it works.
    """

    promise = "It runs in a sandbox: no network, only the open folders are writable, /tmp is empty at first."
    home = "/tmp"  # noqa: S108  # the sandbox's own

    def __init__(self, roots: Roots, processes: Processes) -> None:
        self._roots = roots
        self._processes = processes
        self._bubblewrap = find_program("bwrap", roots)
        self._attempt: asyncio.Task[str | None] | None = None

    async def check(self) -> None:
        """Try once whether it works; everybody who asks meanwhile waits for the same attempt.

        Raises:
            ToolFailure: it is not installed or does not work, and what to do about it.
        """
        if self._attempt is None:
            self._attempt = asyncio.create_task(self._try())
        problem = await asyncio.shield(self._attempt)
        if problem is not None:
            raise ToolFailure(problem)

    async def _try(self) -> str | None:
        program = find_program("true", self._roots)
        if link := self._roots.replaceable:
            problem = (
                f"commands are off, because the link {link}, in a folder that they can write to, leads to files of "
                f"the server itself: name those by their own path, {_WITHOUT}"
            )
        elif isinstance(self._bubblewrap, str) or isinstance(program, str):
            why = self._bubblewrap if isinstance(self._bubblewrap, str) else program
            problem = f"commands are off, because there is no bubblewrap ({why}): install it, {_WITHOUT}"
        else:
            launch = self._launch(program, (), "/", {})
            ended = await self._processes.run(launch, timeout=_ATTEMPT, max_output=1000)
            if ended.exit_code == 0:
                return None
            _logger.warning("bubblewrap said: %s", ended.stderr.text().strip())
            problem = (
                "commands are off, because bubblewrap does not work here; it may be that this system does not let "
                f"users make namespaces, which the server's log tells: mend that, {_WITHOUT}"
            )
        _logger.warning("execute_command: %s", problem)
        return problem

    def launch(
        self, program: Program, arguments: Sequence[str], descriptor: int, environment: Mapping[str, str]
    ) -> Launch:
        """In a sandbox of its own. The path of the folder is looked up inside, so it leads to nothing else."""
        return self._launch(program, arguments, _path_of(descriptor, follow=True), environment)

    def _launch(
        self, program: Program, arguments: Sequence[str], folder: str, environment: Mapping[str, str]
    ) -> Launch:
        assert isinstance(self._bubblewrap, Program)  # noqa: S101  # `check` comes first
        self._bubblewrap.check_unchanged()
        mark = new_mark()
        words = [
            "bwrap",
            *_ISOLATION,
            *self._mounts(program),
            *("--chdir", folder),
            *("--setenv", MARK, mark),  # inside only: to be told to end is not for bubblewrap itself
            "--",
            str(program.path),
            *arguments,
        ]
        return Launch(
            executable=self._bubblewrap.path, words=words, folder="/", environment=dict(environment), mark=mark
        )

    def _mounts(self, program: Program) -> list[str]:
        mounts = ["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"]
        for own in _OF_ITS_OWN:
            mounts += ["--tmpfs", own]
        if any(program.path.is_relative_to(own) for own in _OF_ITS_OWN):
            mounts += ["--ro-bind", str(program.real), str(program.path)]
        for root in self._roots.folders:
            mounts += ["--bind", str(root), str(root)]
        for folder in self._on_the_way():
            mounts += ["--bind", str(folder), str(folder)]
        for folder in self._roots.unchanged:
            mounts += ["--ro-bind", str(folder), str(folder)]
        for hidden in self._roots.hidden:
            if hidden.is_file():
                mounts += ["--ro-bind", "/dev/null", str(hidden)]
            elif hidden.is_dir() or self._roots.holds(hidden):  # one that is not there could be made
                mounts += ["--tmpfs", str(hidden)]
        return mounts

    def _on_the_way(self) -> list[Path]:
        """Folders between a root and what is protected: as mounts they cannot be renamed, to put others there."""
        roots, protected = self._roots.folders, (*self._roots.hidden, *self._roots.unchanged)
        found = {
            folder
            for path in protected
            for folder in path.parents
            if folder.is_dir() and any(root in folder.parents for root in roots)
        }
        return sorted(found)


def _path_of(descriptor: int, *, follow: bool) -> str:
    """A path that leads to the open folder: by its descriptor, or `follow`ed to where that is now."""
    here = Path(f"/proc/self/fd/{descriptor}")
    if here.exists():
        return str(here.readlink()) if follow else str(here)
    import fcntl

    buffer = fcntl.fcntl(descriptor, fcntl.F_GETPATH, bytes(1024))  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownArgumentType]  # macOS's
    return bytes(buffer).rstrip(b"\0").decode()
