"""What the first bytes of a picture say: its type, of the four that Claude can see, and its size in pixels."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

_JPEG: Final = b"\xff\xd8\xff"
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_GIF: Final = (b"GIF87a", b"GIF89a")

_MARKER: Final = 0xFF
"""What each marker of a JPEG begins with."""
_FRAMES: Final = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
"""Markers of that which says the size."""
_NO_SIZE_BEYOND: Final = frozenset({0xD9, 0xDA})
"""The end of a JPEG, and of what stands before its pixels."""
_MOST_MARKERS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Picture:
    """What a picture is; width and height in pixels."""

    media_type: str
    width: int
    height: int


def picture_in(data: bytes) -> Picture | None:
    """The picture that `data` is, told by its bytes; None where they begin none.

    Raises:
        ValueError: they begin as a picture does, and say no size.
    """
    try:
        if data.startswith(_PNG):
            media_type, (width, height) = "image/png", _size_of_png(data)
        elif data.startswith(_JPEG):
            media_type, (width, height) = "image/jpeg", _size_of_jpeg(data)
        elif data.startswith(_GIF):
            media_type, (width, height) = "image/gif", struct.unpack_from("<HH", data, 6)
        elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            media_type, (width, height) = "image/webp", _size_of_webp(data)
        else:
            return None
    except (struct.error, IndexError) as error:
        raise ValueError("the picture ends before its size") from error
    if not (width and height):
        raise ValueError("a side of the picture has no length")
    return Picture(media_type, width, height)


def _size_of_png(data: bytes) -> tuple[int, int]:
    if data[12:16] != b"IHDR":
        raise ValueError("the PNG does not begin with its header")
    return struct.unpack_from(">II", data, 16)


def _size_of_jpeg(data: bytes) -> tuple[int, int]:
    place = 2
    for _ in range(_MOST_MARKERS):
        begin, marker = data[place], data[place + 1]
        if begin != _MARKER or marker in _NO_SIZE_BEYOND:
            break
        if marker == _MARKER:  # the one before it only fills up
            place += 1
        elif marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data, place + 5)
            return width, height
        else:
            (length,) = struct.unpack_from(">H", data, place + 2)
            place += 2 + length
    raise ValueError("the JPEG has no frame")


def _size_of_webp(data: bytes) -> tuple[int, int]:
    match data[12:16]:
        case b"VP8X":
            if len(data) < 30:  # noqa: PLR2004  # where the size ends
                raise IndexError
            return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
        case b"VP8L":
            (bits,) = struct.unpack_from("<I", data, 21)
            return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        case b"VP8 ":
            width, height = struct.unpack_from("<HH", data, 26)
            return width & 0x3FFF, height & 0x3FFF
        case _:
            raise ValueError("the WebP has no picture")
