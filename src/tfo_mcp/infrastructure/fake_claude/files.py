"""Pictures and documents in a request: what the API refuses of them, and how many tokens they have.

The limits are those of "Vision" and "PDF support" at platform.claude.com (October 2026), as far as bytes can tell
that are not decoded; the counts come near to those of the API.
"""

import binascii
import re
from base64 import b64decode
from collections.abc import Iterator
from typing import NoReturn, cast

import msgspec

from tfo_mcp.infrastructure.fake_claude.errors import Rejected
from tfo_mcp.infrastructure.fake_claude.models import Model
from tfo_mcp.infrastructure.fake_claude.shapes import BYTES_PER_TOKEN, Fields, inner
from tfo_mcp.infrastructure.pictures import Picture, picture_in

FILES = frozenset({"image", "document"})
PICTURES = ("image/jpeg", "image/png", "image/gif", "image/webp")
MAX_PICTURE = 5 * 1024 * 1024
"""Bytes of a picture's base64."""
LONGEST_SIDE = 8000
MANY_PICTURES = 20
LONGEST_SIDE_OF_MANY = 2000
"""Pixels of a picture's side; of one among more than so many."""
SMALL_WINDOW = 200_000
MOST_FILES = 600
MOST_FILES_OF_SMALL_WINDOW = 100
"""Pictures, and pages of PDFs, in one request."""

PATCH = 28
"""Pixels of a side of the square that is one token."""
TOKENS_OF_PAGE = 2250
"""Of a page of PDF: the middle of what the API says it takes."""
_PAGE = re.compile(rb"/Type\s*/Page(?![A-Za-z])")


def check_files(fields: Fields, model: Model) -> None:
    """Refuse pictures and documents that the API refuses.

    Raises `Rejected`.
    """
    pictures: list[tuple[str, Picture]] = []
    pages = 0
    for where, block in _files(fields):
        source = inner(block, "source")
        match block["type"], source.get("type"):
            case "image", "base64":
                pictures.append((f"{where}.image.source.base64", _picture(where, source)))
            case "image", "url" | "file":
                pass
            case "document", "base64":
                pages += _pages(_pdf(where, source))
            case "document", "text":
                _check_text(where, source)
            case "document", "url" | "file" | "content":
                pass
            case kind, _:
                _refuse(f"{where}.{kind}.source: Field required")
    most = MOST_FILES_OF_SMALL_WINDOW if model.window <= SMALL_WINDOW else MOST_FILES
    if len(pictures) > most:
        _refuse(f"messages: Too many images: {len(pictures)} > {most}")
    if pages > most:
        _refuse(f"messages: A maximum of {most} PDF pages may be provided.")
    _check_sides(pictures)


def counted_size(block: Fields, size: int, model: Model) -> int:
    """Give the bytes that a block of `size` bytes of JSON counts as: those of a file are three for each token."""
    source = inner(block, "source")
    match block:
        case {"type": "image"} if source.get("type") == "base64":
            return BYTES_PER_TOKEN * _tokens_of(picture_in(_data(source)), model)
        case {"type": "document"} if source.get("type") == "base64":
            return size - len(source["data"]) + BYTES_PER_TOKEN * TOKENS_OF_PAGE * _pages(_data(source))
        case {"type": "tool_result", "content": [*parts]}:
            sizes = [(part, len(msgspec.json.encode(part))) for part in parts if part.get("type") in FILES]
            return size + sum(counted_size(part, length, model) - length for part, length in sizes)
        case _:
            return size


def _files(fields: Fields) -> Iterator[tuple[str, Fields]]:
    messages: list[Fields] = fields["messages"]
    for index, message in enumerate(messages):
        for number, block in enumerate(_blocks(message)):
            where = f"messages.{index}.content.{number}"
            if block["type"] in FILES:
                if message["role"] != "user":
                    _refuse(f"{where}: `{block['type']}` blocks can only be in `user` messages")
                yield where, block
            elif block["type"] == "tool_result":
                for place, part in enumerate(_blocks(block)):
                    if part.get("type") in FILES:
                        yield f"{where}.tool_result.content.{place}", part


def _blocks(outer: Fields) -> list[Fields]:
    content = outer.get("content")
    return cast("list[Fields]", content) if isinstance(content, list) else []


def _picture(where: str, source: Fields) -> Picture:
    where = f"{where}.image.source.base64"
    media_type = source.get("media_type")
    if media_type not in PICTURES:
        _refuse(f"{where}.media_type: Input should be {', '.join(map(repr, PICTURES[:-1]))} or {PICTURES[-1]!r}")
    data = _decoded(where, source)
    size = len(source["data"])
    if size > MAX_PICTURE:
        _refuse(f"{where}: image exceeds 5 MB maximum: {size} bytes > {MAX_PICTURE} bytes")
    try:
        picture = picture_in(data)
    except ValueError:
        picture = None
    if picture is None:
        _refuse(f"{where}: Could not process image")
    if picture.media_type != media_type:
        _refuse(
            f"{where}: The image was specified using the {media_type} media type, but the image appears to be a "
            f"{picture.media_type} image"
        )
    return picture


def _check_sides(pictures: list[tuple[str, Picture]]) -> None:
    are_many = len(pictures) > MANY_PICTURES
    most = LONGEST_SIDE_OF_MANY if are_many else LONGEST_SIDE
    kind = " for many-image requests" if are_many else ""
    for where, picture in pictures:
        if max(picture.width, picture.height) > most:
            _refuse(f"{where}.data: At least one of the image dimensions exceed max allowed size{kind}: {most} pixels")


def _pdf(where: str, source: Fields) -> bytes:
    where = f"{where}.document.source.base64"
    if source.get("media_type") != "application/pdf":
        _refuse(f"{where}.media_type: Input should be 'application/pdf'")
    data = _decoded(where, source)
    if not data.startswith(b"%PDF-"):
        _refuse(f"{where}.data: The PDF specified was not valid.")
    return data


def _check_text(where: str, source: Fields) -> None:
    where = f"{where}.document.source.text"
    if source.get("media_type") != "text/plain":
        _refuse(f"{where}.media_type: Input should be 'text/plain'")
    text = source.get("data")
    if not isinstance(text, str) or not text.strip():
        _refuse(f"{where}.data: text content must contain non-whitespace text")


def _decoded(where: str, source: Fields) -> bytes:
    if not isinstance(source.get("data"), str) or not source["data"]:
        _refuse(f"{where}.data: Field required")
    try:
        return _data(source)
    except ValueError:
        _refuse(f"{where}.data: Invalid base64 data")


def _data(source: Fields) -> bytes:
    try:
        return b64decode(source["data"], validate=True)
    except binascii.Error:
        raise ValueError("not base64") from None


def _tokens_of(picture: Picture | None, model: Model) -> int:
    """One for each patch; the API makes larger pictures smaller, until they have no more than the model can see."""
    if picture is None:
        return 0
    return min(model.picture, -(-picture.width // PATCH) * -(-picture.height // PATCH))


def _pages(data: bytes) -> int:
    """How many pages can be told; those that are compressed together with other objects cannot."""
    return max(1, len(_PAGE.findall(data)))


def _refuse(problem: str) -> NoReturn:
    raise Rejected(problem)
