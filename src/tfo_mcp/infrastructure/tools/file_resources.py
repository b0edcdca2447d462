"""`file:///{path}`: the files below the roots, by their URIs. What `read_file` may not open, nor may this."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from concurrent.futures import Executor
from functools import cache
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

from tfo_mcp.domain.completion import MOST_VALUES, Completion, first_of
from tfo_mcp.domain.errors import ToolFailure
from tfo_mcp.domain.resource import Content, Reader, ResourceTemplate
from tfo_mcp.domain.tool import Abandonable
from tfo_mcp.infrastructure.tools.files import FileLimits, read_bytes
from tfo_mcp.infrastructure.tools.off_the_loop import off_the_loop
from tfo_mcp.infrastructure.tools.roots import Roots, quoted
from tfo_mcp.infrastructure.tools.tree import Tree, TreeLimits

if TYPE_CHECKING:
    from mimetypes import MimeTypes

_PREFIX: Final = "file://"
"""What stands before the path; a host never does."""

_BROKEN: Final = re.compile(r"%(?![0-9A-Fa-f]{2})|[?#\x00-\x1f\x7f]")
"""Half an escape, or what in a URI is not the path's."""

_LISTED: Final = TreeLimits(entries=10_000, depth=1)
"""What completion looks at in one folder."""

_TEXT: Final = "text/plain"
_BINARY: Final = "application/octet-stream"
_MORE_TYPES: Final = {
    ".md": "text/markdown",
    ".toml": "application/toml",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
}
_NO_TEXT: Final = ("audio/", "video/")
"""What text is never, whatever its name says."""


def file_template(roots: Roots, limits: FileLimits, executor: Executor) -> ResourceTemplate:
    """The template over `roots`; reads and looks in `executor`."""
    files = _FileResources(roots, limits, executor)
    return ResourceTemplate(
        uri_template="file:///{path}",
        name="file",
        title="File",
        description=(
            f"A file below the configured roots, whole: of one over {limits.max_read_bytes} bytes read_file "
            "gives the first part."
        ),
        read=files.read,
        complete=files.complete,
    )


class _FileResources:
    def __init__(self, roots: Roots, limits: FileLimits, executor: Executor) -> None:
        self._roots = roots
        self._max_bytes = limits.max_read_bytes
        self._executor = executor

    async def read(self, uri: str, reader: Reader) -> Content:  # noqa: ARG002  # the roots are everybody's
        path = _path_of(uri)
        return await off_the_loop(self._executor, lambda work: self._read(path, work))

    async def complete(self, written: str, reader: Reader) -> Completion:  # noqa: ARG002  # as above
        return await off_the_loop(self._executor, lambda work: self._complete(written, work))

    # --- in a thread ---

    def _read(self, path: str, work: Abandonable) -> Content:
        with self._roots.open(path) as opened:
            if opened.is_folder:
                raise ToolFailure(f"{quoted(path)} is a folder; list_directory shows what is in it")
            data = read_bytes(opened.descriptor, self._max_bytes + 1, work)
        if len(data) > self._max_bytes:
            raise ToolFailure(
                f"{quoted(path)} has more than {self._max_bytes} bytes, the most that a resource gives; "
                "read_file gives its first part"
            )
        return _content(path, data)

    def _complete(self, written: str, work: Abandonable) -> Completion:
        """Files and folders whose path begins so, and which can be opened."""
        head, slash, _ = written.rpartition("/")
        folder, complete = "/" + (head + slash).lstrip("/"), True
        if self._roots.place(folder) is None:
            found = [_spelt_as(written, f"{root}/") for root in self._roots.paths]
        else:
            names, complete = self._names(folder, work)
            found = [f"{head}{slash}{name}" for name in names]
        offered: list[str] = []
        for path in sorted({path for path in found if path.startswith(written)}):
            work.check()
            if (ending := self._ending(path)) is not None:
                offered.append(path.removesuffix("/") + ending)
            if len(offered) > MOST_VALUES:
                break
        return first_of(offered, complete=complete)

    def _names(self, folder: str, work: Abandonable) -> tuple[Sequence[str], bool]:
        """What is in `folder`, and whether that is all."""
        try:
            with self._roots.open(folder) as opened:
                if not opened.is_folder:
                    return (), True
                denied = self._roots.denied()
                tree = Tree(opened.descriptor, denied=denied, skip=frozenset(), limits=_LISTED, context=work)
                return [names[0] for names, _ in tree.walk(recursive=False) if _is_unicode(names[0])], tree.complete
        except ToolFailure:  # not there, or not to be entered
            return (), True

    def _ending(self, path: str) -> str | None:
        """What stands behind the path: a slash behind a folder's; None where it cannot be opened."""
        try:
            with self._roots.open("/" + path.lstrip("/")) as opened:
                return "/" if opened.is_folder else ""
        except ToolFailure:
            return None


def _path_of(uri: str) -> str:
    """The path in a `file:///` URI, its escapes decoded once.

    Raises:
        ToolFailure: it is not written as a URI is.
    """
    path = uri.removeprefix(_PREFIX)
    if _BROKEN.search(path):
        raise ToolFailure(f"{quoted(uri)} is no file URI: write %, ? and # in a path as %25, %3F and %23")
    return os.fsdecode(unquote_to_bytes(path))


def _spelt_as(written: str, path: str) -> str:
    """An absolute path with or without its first slash, as somebody began to write it."""
    return path if written.startswith("/") else path.lstrip("/")


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


@cache
def _types() -> MimeTypes:
    """Python's own table, the same on every machine, and what its older versions lack."""
    from mimetypes import MimeTypes

    types = MimeTypes()
    for ending, kind in _MORE_TYPES.items():
        types.add_type(kind, ending)
    return types


def _content(path: str, data: bytes) -> Content:
    guessed, encoding = _types().guess_type(path)  # an absolute path is also a URL's
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        if guessed is None or encoding is not None or guessed.startswith("text/"):
            guessed = _BINARY
        return Content(guessed, data)
    if guessed is None or encoding is not None or guessed.startswith(_NO_TEXT):
        guessed = _TEXT
    return Content(guessed, text)
