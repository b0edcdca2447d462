from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support import pictures
from tfo_mcp.infrastructure.pictures import Picture, picture_in

SAMPLES = {
    "png": (pictures.PNG, "image/png"),
    "gif": (pictures.GIF, "image/gif"),
    "gif 89a": (b"GIF89a" + pictures.GIF[6:], "image/gif"),
    "jpeg": (pictures.JPEG, "image/jpeg"),
    "progressive jpeg": (pictures.PROGRESSIVE_JPEG, "image/jpeg"),
    "jpeg with bytes that fill up": (b"\xff\xd8\xff\xff\xff" + pictures.JPEG[3:], "image/jpeg"),
    "webp": (pictures.WEBP, "image/webp"),
    "lossless webp": (pictures.LOSSLESS_WEBP, "image/webp"),
    "extended webp": (pictures.EXTENDED_WEBP, "image/webp"),
}


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_picture_is_told_by_its_bytes_with_its_size(sample: str) -> None:
    data, media_type = SAMPLES[sample]
    assert picture_in(data) == Picture(media_type, pictures.WIDTH, pictures.HEIGHT)


@pytest.mark.parametrize(
    "data", [b"", b"\x89PN", b"<svg/>", b"BM\0\0", b"RIFF\0\0\0\0WAVEfmt ", b"\xff\xd8", pictures.PDF, b"GIF88a"]
)
def test_what_begins_as_no_picture_is_none(data: bytes) -> None:
    assert picture_in(data) is None


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_picture_that_ends_before_its_size_is_broken(sample: str) -> None:
    data, _ = SAMPLES[sample]
    shortest = next(length for length in range(len(data)) if _has_size(data[:length]))
    begins = next(length for length in range(len(data)) if picture_in_or_broken(data[:length]))
    assert begins < shortest
    for length in range(begins, shortest):
        with pytest.raises(ValueError, match=r"picture|PNG|JPEG|WebP"):
            picture_in(data[:length])


def _has_size(data: bytes) -> bool:
    try:
        return picture_in(data) is not None
    except ValueError:
        return False


def picture_in_or_broken(data: bytes) -> bool:
    try:
        return picture_in(data) is not None
    except ValueError:
        return True


@pytest.mark.parametrize(
    "data",
    [
        pictures.png(1, 1).replace(b"IHDR", b"IDAT", 1),
        pictures.PNG[:16] + bytes(8) + pictures.PNG[24:],
        pictures.GIF[:8] + bytes(2) + pictures.GIF[10:],
        b"\xff\xd8\xff\xda" + pictures.JPEG,
        b"\xff\xd8\xff\xe0\x00\x02x",
        b"\xff\xd8\xff" + b"\xff" * 20_000 + pictures.JPEG[3:],
        pictures.WEBP.replace(b"VP8 ", b"VP9 "),
    ],
)
def test_a_picture_without_a_size_is_broken(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"picture|PNG|JPEG|WebP"):
        picture_in(data)


@given(
    st.sampled_from([pictures.PNG[:16], pictures.GIF[:6], b"\xff\xd8\xff", pictures.WEBP[:16], b"RIFF0000WEBPVP8L"]),
    st.binary(max_size=200),
)
def test_whatever_follows_there_is_a_picture_or_a_reason(beginning: bytes, rest: bytes) -> None:
    try:
        found = picture_in(beginning + rest)
    except ValueError:
        return
    assert found is not None
    assert found.width > 0
    assert found.height > 0
