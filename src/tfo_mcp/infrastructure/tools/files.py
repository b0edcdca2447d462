"""The tools that read files and folders below the roots: `read_file`, `list_directory`, `search_files`."""

from __future__ import annotations

import codecs
import os
import stat
from collections.abc import Generator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Final

from tfo_mcp.domain.errors import ToolFailure
from tfo_mcp.domain.tool import Abandonable, Tool, ToolAnnotations, ToolContext, ToolMode, ToolResult
from tfo_mcp.infrastructure.tools.encodings import check_encoding
from tfo_mcp.infrastructure.tools.patterns import compile_pattern
from tfo_mcp.infrastructure.tools.roots import Roots, quoted
from tfo_mcp.infrastructure.tools.tree import Entry, Names, Tree, TreeLimits

_REPOSITORY: Final = ".git"
"""Thousands of files that nobody means; not entered unless asked for."""

_CHUNK: Final = 65_536
_TREE: Final = TreeLimits(entries=100_000, depth=40)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileLimits:
    """What one call gives at most.

    Attributes:
        max_read_bytes: bytes of a file; also characters of all names in a listing or search.
        max_entries: entries of a listing, matches of a search.
    """

    max_read_bytes: int = 262_144
    max_entries: int = 1000


def file_tools(roots: Roots, limits: FileLimits) -> list[Tool]:
    """`read_file`, `list_directory` and `search_files` over `roots`."""
    files = _Files(roots, limits)
    annotations = ToolAnnotations(read_only=True, destructive=False, idempotent=True, open_world=False)
    return [
        Tool(
            name="read_file",
            title="Read a file",
            description=f"Read a text file. Of one over {limits.max_read_bytes} bytes the first part is given.",
            input_schema=_object(
                {
                    "path": {"type": "string", "description": "The file, absolute or relative to the first root."},
                    "encoding": {"type": "string", "default": "utf-8", "maxLength": 40},
                },
                required=["path"],
            ),
            output_schema=_object(
                {
                    "path": {"type": "string"},
                    "content": {"type": "string"},
                    "encoding": {"type": "string"},
                    "size": {"type": "integer", "description": "Bytes of the whole file."},
                    "truncated": {"type": "boolean"},
                }
            ),
            run=files.read,
            mode=ToolMode.THREAD,
            annotations=annotations,
        ),
        Tool(
            name="list_directory",
            title="List a folder",
            description="List a folder's entries with type and size. Recursive: nearest first, not inside .git.",
            input_schema=_object(
                {"path": _FOLDER_PATH, "recursive": {"type": "boolean", "default": False}}, required=[]
            ),
            output_schema=_object(
                {
                    "path": {"type": "string"},
                    "entries": {"type": "array", "items": _ENTRY},
                    "total": {"type": "integer", "description": "Entries seen; the least there are if truncated."},
                    "truncated": {"type": "boolean"},
                }
            ),
            run=files.list,
            mode=ToolMode.THREAD,
            annotations=annotations,
        ),
        Tool(
            name="search_files",
            title="Find files by name",
            description="Find files and folders below a folder by a glob pattern; the matches are relative to it.",
            input_schema=_object(
                {
                    "path": _FOLDER_PATH,
                    "pattern": {
                        "type": "string",
                        "description": "'*.py' matches names at any depth, 'src/**/*.py' paths relative to path.",
                        "minLength": 1,
                        "maxLength": 1000,
                    },
                },
                required=["pattern"],
            ),
            output_schema=_object(
                {
                    "path": {"type": "string"},
                    "matches": {"type": "array", "items": {"type": "string"}},
                    "count": {"type": "integer"},
                    "truncated": {"type": "boolean", "description": "Whether there may be more."},
                }
            ),
            run=files.search,
            mode=ToolMode.THREAD,
            annotations=annotations,
        ),
    ]


def _object(properties: Mapping[str, Any], required: list[str] | None = None) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties) if required is None else required,
        "additionalProperties": False,
    }


_FOLDER_PATH: Final = {
    "type": "string",
    "default": ".",
    "description": "The folder, absolute or relative to the first root.",
}

_ENTRY: Final = _object(
    {
        "name": {"type": "string", "description": "Relative to path."},
        "type": {"enum": ["file", "directory", "symlink", "other"]},
        "size": {"type": "integer", "description": "Bytes, of files only."},
    },
    required=["name", "type"],
)


class _Files:
    def __init__(self, roots: Roots, limits: FileLimits) -> None:
        self._roots = roots
        self._limits = limits

    def read(self, arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        path, encoding = arguments["path"], arguments.get("encoding", "utf-8")
        check_encoding(encoding)
        decoder = codecs.getincrementaldecoder(encoding)()
        limit = self._limits.max_read_bytes
        with self._roots.open(path) as opened:
            if opened.is_folder:
                raise ToolFailure(f"{quoted(path)} is a folder; list_directory shows what is in it")
            size = opened.status.st_size
            data = read_bytes(opened.descriptor, limit + 1, context)
        truncated = len(data) > limit
        content = _decoded(decoder, data[:limit], path, encoding, final=not truncated)
        if not truncated:
            notes = ""
        else:
            content = content[: content.rfind("\n") + 1] or content
            notes = f"[cut here: the file has {size} bytes, and at most {limit} are given]"
        structured = {
            "path": path,
            "content": content,
            "encoding": encoding,
            "size": size,
            "truncated": truncated,
        }
        return ToolResult(_with_notes(content, notes), structured=structured)

    def list(self, arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        path, recursive = arguments.get("path", "."), arguments.get("recursive", False)
        entries: list[tuple[Names, dict[str, Any]]] = []
        total, room = 0, self._limits.max_read_bytes
        with self._tree(path, context, skip={_REPOSITORY}) as tree, closing(tree.walk(recursive=recursive)) as found:
            for names, entry in found:
                total += 1
                room -= sum(map(len, names))
                if room >= 0 and len(entries) < self._limits.max_entries:
                    entries.append((names, _described(names, entry)))
        entries.sort(key=lambda entry: entry[0])
        listed = [entry for _, entry in entries]
        truncated = total > len(listed) or not tree.complete
        at_least = "" if tree.complete else "at least "
        notes = f"[{len(listed)} of {at_least}{total} entries]" if truncated else ""
        structured = {"path": path, "entries": listed, "total": total, "truncated": truncated}
        text = "\n".join(map(_line, listed)) or "[empty]"
        return ToolResult(_with_notes(text, notes), structured=structured)

    def search(self, arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        path, pattern = arguments.get("path", "."), arguments["pattern"]
        matches = compile_pattern(pattern)
        skip = {_REPOSITORY} - set(pattern.split("/"))
        found: list[Names] = []
        room, full = self._limits.max_read_bytes, False
        with self._tree(path, context, skip=skip) as tree, closing(tree.walk(recursive=True)) as walk:
            for names, _ in walk:
                if not matches(names):
                    continue
                room -= sum(map(len, names))
                if full := room < 0 or len(found) == self._limits.max_entries:
                    break
                found.append(names)
        paths = [wire_name("/".join(names)) for names in sorted(found)]
        truncated = full or not tree.complete
        notes = f"[{len(paths)} matches, and there may be more: narrow path or pattern]" if truncated else ""
        structured = {"path": path, "matches": paths, "count": len(paths), "truncated": truncated}
        text = "\n".join(map(_printable, paths)) or "[no matches]"
        return ToolResult(_with_notes(text, notes), structured=structured)

    @contextmanager
    def _tree(self, path: str, context: ToolContext, *, skip: set[str]) -> Generator[Tree]:
        with self._roots.open(path) as opened:
            if not opened.is_folder:
                raise ToolFailure(f"{quoted(path)} is a file, not a folder; read_file shows its content")
            denied = self._roots.denied()
            yield Tree(opened.descriptor, denied=denied, skip=frozenset(skip), limits=_TREE, context=context)


def read_bytes(descriptor: int, size: int, context: Abandonable) -> bytes:
    """At most the first `size` bytes."""
    data = bytearray()
    while len(data) < size:
        context.check()
        chunk = os.read(descriptor, min(_CHUNK, size - len(data)))
        if not chunk:
            break
        data += chunk
    return bytes(data)


def _decoded(decoder: codecs.IncrementalDecoder, data: bytes, path: str, encoding: str, *, final: bool) -> str:
    try:
        content = decoder.decode(data, final=final)
        content.encode()  # some encodings can hold halves of surrogate pairs, which JSON cannot
    except UnicodeError as error:
        raise ToolFailure(
            f"{quoted(path)} is not {encoding} text: it is binary, or its encoding must be named (latin-1, utf-16, …)"
        ) from error
    if "\0" in content:
        raise ToolFailure(f"{quoted(path)} is not text in {encoding}: it holds NUL characters, as binary files do")
    return content


def _described(names: Names, entry: Entry) -> dict[str, Any]:
    described: dict[str, Any] = {"name": wire_name("/".join(names)), "type": "other"}
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError:  # gone since it was listed
        return described
    if stat.S_ISREG(status.st_mode):
        return {**described, "type": "file", "size": status.st_size}
    if stat.S_ISDIR(status.st_mode):
        return {**described, "type": "directory"}
    return {**described, "type": "symlink"} if stat.S_ISLNK(status.st_mode) else described


def _line(entry: Mapping[str, Any]) -> str:
    name = _printable(entry["name"])
    match entry["type"]:
        case "file":
            return f"{name}  {entry['size']} bytes"
        case "directory":
            return f"{name}/"
        case kind:
            return f"{name}  ({kind})"


def wire_name(name: str) -> str:
    """A file's name with the bytes that are not UTF-8 spelt out, for JSON has no place for them."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _printable(name: str) -> str:
    """A name on one line of a text that others read: a line break in it must not look like another entry."""
    return name if name.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)


def _with_notes(text: str, notes: str) -> str:
    if not notes:
        return text
    return f"{text}{notes}" if text.endswith("\n") else f"{text}\n{notes}"
