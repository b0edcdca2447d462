"""The tool that writes files below the roots: `write_file`. Whoever looks sees the old file or the new one, whole."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Generator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

from tfo_mcp.domain.errors import PathRefused, ToolFailure
from tfo_mcp.domain.tool import Tool, ToolAnnotations, ToolContext, ToolMode, ToolResult
from tfo_mcp.infrastructure.tools.encodings import check_encoding
from tfo_mcp.infrastructure.tools.roots import Roots, Walk, enter, failure_of, folded, identity, quoted

_CHUNK: Final = 1_048_576

_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)

_REPOSITORY: Final = ".git"
_OF_A_REPOSITORY: Final = ("HEAD", "objects", "refs")
"""What git takes a folder for a repository by."""


def writing_tools(roots: Roots, *, max_bytes: int) -> list[Tool]:
    """`write_file` over `roots`; `max_bytes` is what one call writes at most."""
    return [
        Tool(
            name="write_file",
            title="Write a file",
            description=(
                f"Write a text file of at most {max_bytes} bytes, a new one or in place of the one that is there. "
                "Not inside .git."
            ),
            input_schema={
                "type": "object",
                "properties": {
                    "path": {"type": "string", "description": "The file, absolute or relative to the first root."},
                    "content": {"type": "string", "description": "All that is to be in it."},
                    "encoding": {"type": "string", "default": "utf-8", "maxLength": 40},
                    "create_dirs": {
                        "type": "boolean",
                        "default": False,
                        "description": "Whether to make the folders on the way that are missing.",
                    },
                },
                "required": ["path", "content"],
                "additionalProperties": False,
            },
            output_schema={
                "type": "object",
                "properties": {
                    "path": {"type": "string"},
                    "bytes_written": {"type": "integer"},
                    "created": {"type": "boolean", "description": "Whether there was none before."},
                },
                "required": ["path", "bytes_written", "created"],
                "additionalProperties": False,
            },
            run=_Writer(roots, max_bytes).write,
            mode=ToolMode.THREAD,
            annotations=ToolAnnotations(read_only=False, destructive=True, idempotent=True, open_world=False),
            audited=("path", "encoding", "create_dirs"),
        )
    ]


class _Writer:
    def __init__(self, roots: Roots, max_bytes: int) -> None:
        self._roots = roots
        self._max_bytes = max_bytes

    def write(self, arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        path = arguments["path"]
        data = self._encoded(arguments["content"], arguments.get("encoding", "utf-8"))
        with self._target(path, create_dirs=arguments.get("create_dirs", False)) as target:
            _replace(target, data, context)
        created = target.status is None
        structured = {"path": path, "bytes_written": len(data), "created": created}
        text = f"{'created' if created else 'replaced'} {quoted(path)}, {len(data)} bytes"
        return ToolResult(text, structured=structured)

    def _encoded(self, content: str, encoding: str) -> bytes:
        check_encoding(encoding)
        if len(content) <= self._max_bytes:
            try:
                data = content.encode(encoding)
            except UnicodeError as error:
                raise ToolFailure(
                    f"content cannot be written in {encoding}, which does not have all of its characters"
                ) from error
            if len(data) <= self._max_bytes:
                return data
        raise ToolFailure(f"content is over {self._max_bytes} bytes, which is the most that one call may write")

    @contextmanager
    def _target(self, path: str, *, create_dirs: bool) -> Generator[_Target]:
        """Where `path` leads: the place that is to be written, its folder open.

        Raises:
            PathRefused: it leads outside the roots, to a file of the server itself, into a repository's own
                folder, or to what is no file.
            ToolFailure: it cannot be written.
        """
        self._roots.check(path)
        try:
            with closing(_WritingWalk(self._roots, path, create_dirs=create_dirs)) as walk:
                yield walk.arrive_at_target()
        except OSError as error:
            raise failure_of(error, path, "written") from error


@dataclass(frozen=True, slots=True)
class _Target:
    """A name in an open folder; `status` is that of the regular file which has it, None where nothing has."""

    folder: int
    name: str
    status: os.stat_result | None


class _WritingWalk(Walk):
    """A walk to what is to be written. The links at its end are followed as all others: they stay."""

    def __init__(self, roots: Roots, path: str, *, create_dirs: bool) -> None:
        super().__init__(roots, path)
        self._create_dirs = create_dirs
        self._reserved = roots.reserved()
        self._program = roots.program()

    def arrive_at_target(self) -> _Target:
        """The place at the end. Its folder stays open until the walk is closed."""
        found = self._go()
        if found is None:
            raise ToolFailure(f"{quoted(self._path)} is a folder, not a file")
        name, mode = found
        if not mode:
            return _Target(self._stack[-1], name, None)
        status = os.stat(name, dir_fd=self._stack[-1], follow_symlinks=False)
        self._refuse_special(status.st_mode)
        self._refuse_denied(status)
        return _Target(self._stack[-1], name, status)

    def _look(self, name: str) -> int:
        self._refuse_names_not_to_be_made(name)
        try:
            return super()._look(name)
        except FileNotFoundError:
            if not self._todo:
                return 0
            if not self._create_dirs:
                raise ToolFailure(f"a folder of {quoted(self._path)} is missing; create_dirs makes it") from None
            if not {".", ".."}.isdisjoint(self._todo):
                raise
        with suppress(FileExistsError):  # somebody else was faster
            os.mkdir(name, dir_fd=self._stack[-1])
        return super()._look(name)

    def _hold(self, descriptor: int) -> None:
        super()._hold(descriptor)
        if identity(os.fstat(descriptor)) in self._program:
            raise PathRefused(
                f"{quoted(self._path)} is part of the server's own program, which file tools never change: "
                "its next start would run it"
            )
        if all(_has(descriptor, name) for name in _OF_A_REPOSITORY):
            self._refuse_repository()

    def _refuse_names_not_to_be_made(self, name: str) -> None:
        here = self._stack[-1]
        if folded(name) == _REPOSITORY or _is_same(here, name, _REPOSITORY):
            self._refuse_repository()
        if (identity(os.fstat(here)), folded(name)) in self._reserved:
            raise PathRefused(f"{quoted(self._path)} is one of the server's own files, which file tools never touch")

    def _refuse_repository(self) -> None:
        raise PathRefused(
            f"{quoted(self._path)} is part of a git repository's own folder, which file tools never write to: "
            "its configuration and hooks run programs"
        )


def _has(folder: int, name: str) -> bool:
    with suppress(OSError):
        os.stat(name, dir_fd=folder, follow_symlinks=False)
        return True
    return False


def _is_same(folder: int, name: str, other: str) -> bool:
    with suppress(OSError):  # one is not there
        return os.path.samestat(
            os.stat(name, dir_fd=folder, follow_symlinks=False), os.stat(other, dir_fd=folder, follow_symlinks=False)
        )
    return False


def _replace(target: _Target, data: bytes, context: ToolContext) -> None:
    """Put `data` in the place of what is at `target`, at once and lastingly."""
    if target.status is not None and not os.access(target.name, os.W_OK, dir_fd=target.folder):
        raise PermissionError(13, os.strerror(13))  # to replace it would need no right to the file itself
    temporary = f".tfo-mcp-{secrets.token_hex(8)}.tmp"
    descriptor = os.open(temporary, _NEW_FILE, 0o666 if target.status is None else 0o600, dir_fd=target.folder)
    try:
        try:
            if target.status is not None:
                _keep_owner_and_mode(descriptor, target.status)
            _write(descriptor, data, context)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        context.check()
        os.rename(temporary, target.name, src_dir_fd=target.folder, dst_dir_fd=target.folder)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=target.folder)
        raise
    _sync_folder(target.folder)


def _keep_owner_and_mode(descriptor: int, status: os.stat_result) -> None:
    with suppress(PermissionError):  # only root gives files away
        os.fchown(descriptor, status.st_uid, status.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(status.st_mode) & 0o777)  # as after a write: what it was trusted with is gone


def _write(descriptor: int, data: bytes, context: ToolContext) -> None:
    view = memoryview(data)
    while view:
        context.check()
        view = view[os.write(descriptor, view[:_CHUNK]) :]


def _sync_folder(folder: int) -> None:
    with suppress(PermissionError):  # a folder that may be written but not listed
        readable = enter(folder, ())
        try:
            os.fsync(readable)
        finally:
            os.close(readable)
