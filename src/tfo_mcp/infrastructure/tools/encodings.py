"""Which of Python's encodings a text file may be in."""

from __future__ import annotations

import codecs
import io
from typing import Final

from tfo_mcp.domain.errors import ToolFailure
from tfo_mcp.infrastructure.tools.roots import quoted

_NO_CHARSETS: Final = frozenset({"idna", "punycode", "undefined"})
"""Python's text encodings that no file is in; decoding punycode takes time by the square."""


def check_encoding(encoding: str) -> None:
    """Refuse what is no encoding of text.

    Raises:
        ToolFailure: there is none of this name.
    """
    try:
        io.TextIOWrapper(io.BytesIO(), encoding=encoding).close()  # refuses what turns bytes into bytes
        if codecs.lookup(encoding).name not in _NO_CHARSETS:
            return
    except (LookupError, ValueError):
        pass
    raise ToolFailure(f"there is no text encoding {quoted(encoding)}; try utf-8, utf-16, latin-1 or cp1252")
