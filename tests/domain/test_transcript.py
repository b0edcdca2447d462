from __future__ import annotations

from typing import Any

import pytest

from tfo_mcp.domain.message import Message, OpaqueBlock, Text
from tfo_mcp.domain.transcript import Transcript


def tokens(block: dict[str, Any]) -> int:
    """How many a message of this block alone is taken for."""
    return Transcript([Message("user", (OpaqueBlock(block),))]).tokens


def base64(kind: str, size: int) -> dict[str, Any]:
    return {"type": kind, "source": {"type": "base64", "media_type": "x/y", "data": "A" * size}}


@pytest.mark.parametrize("size", [200_000, 5_242_880])
def test_a_large_picture_is_taken_for_no_more_tokens_than_the_api_makes_of_the_largest(size: int) -> None:
    assert tokens(base64("image", size)) == 4784


def test_a_file_is_taken_for_fewer_tokens_than_a_text_of_as_many_bytes() -> None:
    assert tokens(base64("image", 25_000)) == pytest.approx(1000, abs=5)
    assert tokens(base64("document", 25_000_000)) == pytest.approx(1_000_000, abs=5)
    text = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x" * 3000}}
    assert 1000 < tokens(text) < 1050
    assert Transcript([Message("user", (Text("x" * 3000),))]).tokens == 1009
