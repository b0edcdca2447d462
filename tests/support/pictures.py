"""Pictures, as encoders write them and as large as a test needs."""

from __future__ import annotations

import struct
import zlib
from base64 import b64decode

PNG = b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAACUAAAAVCAIAAABOhrD5AAAAJklEQVR4nGM8IWfDQEfARE/LRu0btW/UvlH7Ru0btW/UvlH7qAAAMW0BTGz0"
    "GRcAAAAASUVORK5CYII="
)
GIF = b64decode(
    "R0lGODdhJQAVAIEAAMgePAAAAAAAAAAAACwAAAAAJQAVAEAILwABCBxIsKDBgwgTKlzIsKHDhxAjSpxIsaLFixgzatzIsaPHjyBDihxJsqRJkgEB"
    "ADs="
)
JPEG = b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAgGBgcGBQgHBwcJCQgKDBQNDAsLDBkSEw8UHRofHh0aHBwgJC4nICIsIxwcKDcpLDAxNDQ0Hyc5PTgy"
    "PC4zNDL/wAALCAAVACUBAREA/8QAFAABAAAAAAAAAAAAAAAAAAAAAP/EABQQAQAAAAAAAAAAAAAAAAAAAAD/2gAIAQEAAD8AAAAAA//Z"
)
PROGRESSIVE_JPEG = b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAgGBgcGBQgHBwcJCQgKDBQNDAsLDBkSEw8UHRofHh0aHBwgJC4nICIsIxwcKDcpLDAxNDQ0Hyc5PTgy"
    "PC4zNDL/wgALCAAVACUBAREA/8QAFAABAAAAAAAAAAAAAAAAAAAAAP/aAAgBAQAAAAEAAf/EABQQAQAAAAAAAAAAAAAAAAAAADD/2gAIAQEAAQUC"
    "f//EABQQAQAAAAAAAAAAAAAAAAAAADD/2gAIAQEABj8Cf//EABQQAQAAAAAAAAAAAAAAAAAAADD/2gAIAQEAAT8hf//aAAgBAQAAABAAAf/EABQQ"
    "AQAAAAAAAAAAAAAAAAAAADD/2gAIAQEAAT8Qf//Z"
)
WEBP = b64decode("UklGRkIAAABXRUJQVlA4IDYAAAAwAwCdASolABUAP83m7XA/uDIrJWgD8DmJZwDLLA8Kvu4AAP7Qx7//WuVtoBJrErbLdAAAAAA=")
LOSSLESS_WEBP = b64decode("UklGRh4AAABXRUJQVlA4TBEAAAAvJAAFAAdQjyKXp/+BiOh/AAA=")
EXTENDED_WEBP = b64decode(
    "UklGRnYAAABXRUJQVlA4WAoAAAAIAAAAJAAAFAAAVlA4IDYAAAAwAwCdASolABUAP83m7XA/uDIrJWgD8DmJZwDLLA8Kvu4AAP7Qx7//WuVtoBJr"
    "ErbLdAAAAABFWElGGgAAAE1NACoAAAAIAAEBEgADAAAAAQABAAAAAAAA"
)
WIDTH, HEIGHT = 37, 21
"""Pixels of each of them."""

PDF = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[3 0 R 4 0 R]/Count 2>>endobj\n"
    b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>endobj\n"
    b"4 0 obj<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] >>endobj\ntrailer<</Root 1 0 R/Size 5>>\n%%EOF\n"
)
"""Two empty pages."""


def png(width: int, height: int, *, padding: int = 0) -> bytes:
    """A black one of so many pixels, with `padding` bytes that mean nothing."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(1 + -(-width // 8)) * height)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", header),
            *([_chunk(b"paDd", bytes(padding))] if padding else []),
            _chunk(b"IDAT", rows),
            _chunk(b"IEND", b""),
        ]
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
