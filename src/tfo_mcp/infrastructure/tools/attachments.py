"""Files below the roots as content blocks of the Messages API. What `read_file` may not open, nor may this."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from tfo_mcp.domain.errors import ToolFailure
from tfo_mcp.domain.message import Block, OpaqueBlock
from tfo_mcp.domain.tool import Abandonable
from tfo_mcp.infrastructure.pictures import picture_in
from tfo_mcp.infrastructure.tools.files import read_bytes, wire_name
from tfo_mcp.infrastructure.tools.off_the_loop import off_the_loop
from tfo_mcp.infrastructure.tools.roots import Roots, quoted

_PDF: Final = b"%PDF-"

_LARGEST_PICTURE: Final = 5 * 1024 * 1024 // 4 * 3
"""Bytes: the API takes 5 MiB, and counts them in base64."""
_LONGEST_SIDE: Final = 8000
"""Pixels; the API refuses a picture with a longer one."""
_MOST_IN_ALL: Final = 30_000_000
"""Bytes of all files of a message, as they are sent: the API takes 32 MB, with all that was said before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachmentLimits:
    """What one message may have.

    Attributes:
        max_bytes: of a file.
        max_count: of files.
    """

    max_bytes: int
    max_count: int


class Attachments:
    """Reads the files that go with a message, in `executor`."""

    def __init__(self, roots: Roots, limits: AttachmentLimits, executor: Executor) -> None:
        self._roots = roots
        self._limits = limits
        self._executor = executor

    async def read(self, paths: Sequence[str]) -> tuple[Block, ...]:
        """A block for each of `paths`, in their order. What a file is, its bytes tell, not its name.

        Raises:
            PathRefused: one leads outside the roots, or to what no tool may open.
            ToolFailure: there are too many, or one is missing, unreadable, a folder, empty, too large, or of a type
                that Claude cannot see.
        """
        if len(paths) > self._limits.max_count:
            raise ToolFailure(
                f"a message may have at most {self._limits.max_count} files (claude.max_attachments), "
                f"and this one has {len(paths)}"
            )
        return await off_the_loop(self._executor, lambda work: self._read_all(paths, work)) if paths else ()

    # --- in a thread ---

    def _read_all(self, paths: Sequence[str], work: Abandonable) -> tuple[Block, ...]:
        blocks: list[Block] = []
        room = _MOST_IN_ALL
        for path in paths:
            block = _block(path, self._read(path, work))
            room -= len(json.dumps(block, ensure_ascii=False).encode())
            if room < 0:
                raise ToolFailure(
                    f"the files have more than {_MOST_IN_ALL} bytes in all as they are sent, and Claude's API takes "
                    "32 MB: send fewer, or some of them in another conversation"
                )
            blocks.append(OpaqueBlock(block))
        return tuple(blocks)

    def _read(self, path: str, work: Abandonable) -> bytes:
        limit = self._limits.max_bytes
        with self._roots.open(path) as opened:
            if opened.is_folder:
                raise ToolFailure(f"{quoted(path)} is a folder; list_directory shows which files are in it")
            data = read_bytes(opened.descriptor, limit + 1, work)
        if len(data) > limit:
            raise ToolFailure(
                f"{quoted(path)} has more than {limit} bytes, the most that a file for Claude may have "
                "(claude.max_attachment_bytes)"
            )
        if not data:
            raise ToolFailure(f"{quoted(path)} is empty")
        return data


def _block(path: str, data: bytes) -> Mapping[str, Any]:
    if (media_type := _picture_type(path, data)) is not None:
        return {"type": "image", "source": _base64(media_type, data)}
    source = _base64("application/pdf", data) if data.startswith(_PDF) else _text(path, data)
    return {"type": "document", "source": source, "title": wire_name(PurePosixPath(path).name)}


def _picture_type(path: str, data: bytes) -> str | None:
    """The type of a picture that the API takes; None of what is none."""
    try:
        picture = picture_in(data)
    except ValueError as error:
        raise ToolFailure(f"{quoted(path)} begins as a picture does, and is broken") from error
    if picture is None:
        return None
    if len(data) > _LARGEST_PICTURE:
        raise ToolFailure(
            f"{quoted(path)} is a picture of {len(data)} bytes, and {_LARGEST_PICTURE} is the most that Claude's API "
            "takes: make it smaller"
        )
    if max(picture.width, picture.height) > _LONGEST_SIDE:
        raise ToolFailure(
            f"{quoted(path)} is a picture of {picture.width} x {picture.height} pixels, and no side may have more than "
            f"{_LONGEST_SIDE}: make it smaller"
        )
    return picture.media_type


def _base64(media_type: str, data: bytes) -> Mapping[str, str]:
    return {"type": "base64", "media_type": media_type, "data": b64encode(data).decode("ascii")}


def _text(path: str, data: bytes) -> Mapping[str, str]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise ToolFailure(
            f"{quoted(path)} is nothing that Claude can see: no PNG, JPEG, GIF or WebP picture, no PDF, and no text in "
            "UTF-8"
        )
    if not text.strip():
        raise ToolFailure(f"{quoted(path)} has nothing but blanks in it")
    return {"type": "text", "media_type": "text/plain", "data": text}
