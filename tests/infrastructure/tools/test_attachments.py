"""Files that go with a message: real ones, in a folder of the test's own."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
import threading
from base64 import b64decode
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from support import pictures
from tfo_mcp.domain.errors import PathRefused, ToolFailure
from tfo_mcp.domain.message import Message, Text, block_from_json
from tfo_mcp.domain.transcript import Transcript
from tfo_mcp.infrastructure.tools.attachments import AttachmentLimits, Attachments
from tfo_mcp.infrastructure.tools.roots import Roots

MIB = 1024 * 1024
NOTHING = "is nothing that Claude can see: no PNG, JPEG, GIF or WebP picture, no PDF, and no text in UTF-8"


def blocks(
    root: Path, *paths: str, max_bytes: int = 4 * MIB, max_count: int = 10, denied: Sequence[Path] = ()
) -> list[dict[str, Any]]:
    """What is read of `paths`, in the API's shape."""
    with ThreadPoolExecutor(1) as executor:
        limits = AttachmentLimits(max_bytes=max_bytes, max_count=max_count)
        attachments = Attachments(Roots([root], denied=denied), limits, executor)
        return [block.to_json() for block in asyncio.run(attachments.read(paths))]


def refusal(root: Path, *paths: str, **limits: Any) -> str:  # noqa: ANN401  # those of `blocks`
    with pytest.raises(ToolFailure) as refused:
        blocks(root, *paths, **limits)
    return str(refused.value)


@pytest.mark.parametrize(
    ("name", "data", "media_type"),
    [
        ("a.png", pictures.PNG, "image/png"),
        ("a.jpg", pictures.JPEG, "image/jpeg"),
        ("a.gif", pictures.GIF, "image/gif"),
        ("a.webp", pictures.WEBP, "image/webp"),
        ("a.txt", pictures.PNG, "image/png"),
        ("png.jpg", pictures.PNG, "image/png"),
        ("jpg.pdf", pictures.JPEG, "image/jpeg"),
        ("none", pictures.GIF, "image/gif"),
    ],
)
def test_a_picture_is_an_image_of_the_type_that_its_bytes_tell(
    tmp_path: Path, name: str, data: bytes, media_type: str
) -> None:
    (tmp_path / name).write_bytes(data)
    (block,) = blocks(tmp_path, name)
    source = block["source"]
    assert b64decode(source.pop("data"), validate=True) == data
    assert block == {"type": "image", "source": {"type": "base64", "media_type": media_type}}


@pytest.mark.parametrize("name", ["report.pdf", "report.png", "report"])
def test_a_pdf_is_a_document_with_its_name_as_the_title(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(pictures.PDF)
    (block,) = blocks(tmp_path, f"in/{name}")
    source = block["source"]
    assert b64decode(source.pop("data"), validate=True) == pictures.PDF
    assert block == {
        "type": "document",
        "title": name,
        "source": {"type": "base64", "media_type": "application/pdf"},
    }


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("Grüße\r\n\tund €\n".encode(), "Grüße\r\n\tund €\n"),
        (b"\xef\xbb\xbfafter a mark", "after a mark"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "<svg xmlns='http://www.w3.org/2000/svg'/>"),
        (b"BM as a text", "BM as a text"),
    ],
)
def test_a_text_is_a_document_as_it_is(tmp_path: Path, data: bytes, text: str) -> None:
    (tmp_path / "notes.png").write_bytes(data)
    assert blocks(tmp_path, "notes.png") == [
        {
            "type": "document",
            "title": "notes.png",
            "source": {"type": "text", "media_type": "text/plain", "data": text},
        }
    ]


def test_files_keep_their_order_and_may_come_twice(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(pictures.PNG)
    (tmp_path / "b").write_text("text")
    (tmp_path / "c").symlink_to("b")
    found = blocks(tmp_path, "b", "a", str(tmp_path / "c"), "b")
    assert [block.get("title", block["type"]) for block in found] == ["b", "image", "c", "b"]


def test_no_files_are_no_blocks_and_need_no_roots() -> None:
    async def read() -> object:
        with ThreadPoolExecutor(1) as executor:
            return await Attachments(Roots([]), AttachmentLimits(max_bytes=1, max_count=0), executor).read([])

    assert asyncio.run(read()) == ()


def test_a_name_that_is_not_utf_8_is_spelt_out_in_the_title(tmp_path: Path) -> None:
    name = b"caf\xe9.txt"
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_text("text")
    (block,) = blocks(tmp_path, os.fsdecode(name))
    assert block["title"] == "caf\\xe9.txt"
    assert json.dumps(block).encode()


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("../outside.png", "'../outside.png' leads outside the folders that are open to file tools"),
        ("/etc/passwd", "'/etc/passwd' leads outside the folders that are open to file tools"),
        ("leads-out.png", "'leads-out.png' leads outside the folders that are open to file tools"),
        ("own/key.png", "'own/key.png' is one of the server's own files, which file tools never touch"),
        ("fifo", "'fifo' is a device, pipe or socket, not a file or folder"),
        ("socket", "'socket' is a device, pipe or socket, not a file or folder"),
        ("a\0b", "a path cannot hold a NUL character"),
    ],
)
def test_what_no_tool_may_open_is_refused(tmp_path: Path, path: str, sentence: str) -> None:
    root = tmp_path / "root"
    (root / "own").mkdir(parents=True)
    (tmp_path / "outside.png").write_bytes(pictures.PNG)
    (root / "own" / "key.png").write_bytes(pictures.PNG)
    (root / "leads-out.png").symlink_to(tmp_path / "outside.png")
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        here = Path.cwd()
        os.chdir(root)  # a socket's path may be short only
        try:
            listening.bind("socket")
        finally:
            os.chdir(here)
        with pytest.raises(PathRefused) as refused:
            blocks(root, path, denied=[root / "own"])
    assert str(refused.value) == sentence


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("missing.png", "there is no 'missing.png'"),
        ("", "the path is empty; '.' is the first root"),
        ("folder", "'folder' is a folder; list_directory shows which files are in it"),
        ("empty", "'empty' is empty"),
        ("picture.png/", "'picture.png/' goes through something that is not a folder"),
        ("blanks", "'blanks' has nothing but blanks in it"),
        ("binary", f"'binary' {NOTHING}"),
        ("with-nul.txt", f"'with-nul.txt' {NOTHING}"),
        ("broken.jpg", "'broken.jpg' begins as a picture does, and is broken"),
        (
            "tall.png",
            "'tall.png' is a picture of 1 x 8001 pixels, and no side may have more than 8000: make it smaller",
        ),
    ],
)
def test_what_claude_cannot_see_is_one_clear_sentence(tmp_path: Path, path: str, sentence: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "picture.png").write_bytes(pictures.PNG)
    (tmp_path / "empty").touch()
    (tmp_path / "blanks").write_text(" \n\t\u2003\n")
    (tmp_path / "binary").write_bytes(b"\x7fELF\x02\x01\xff\xfe")
    (tmp_path / "with-nul.txt").write_bytes(b"a\0b")
    (tmp_path / "broken.jpg").write_bytes(pictures.JPEG[:30])
    (tmp_path / "tall.png").write_bytes(pictures.png(1, 8001))
    assert refusal(tmp_path, "picture.png", path) == sentence


def test_a_picture_of_the_most_pixels_is_taken(tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(pictures.png(8000, 8000))
    assert [block["type"] for block in blocks(tmp_path, "large.png")] == ["image"]


def test_a_file_that_may_not_be_read_is_one_clear_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As whoever runs the tests may well be allowed everything."""
    (tmp_path / "secret").write_text("text")

    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "read", refuse)
    assert refusal(tmp_path, "secret") == "the server has no permission to read 'secret'"


def test_a_file_at_the_limit_is_taken_and_one_beyond_it_is_not(tmp_path: Path) -> None:
    (tmp_path / "full").write_text("x" * 1000)
    (tmp_path / "over").write_text("x" * 1001)
    assert len(blocks(tmp_path, "full", max_bytes=1000)) == 1
    assert refusal(tmp_path, "over", max_bytes=1000) == (
        "'over' has more than 1000 bytes, the most that a file for Claude may have (claude.max_attachment_bytes)"
    )


def test_a_picture_has_at_most_what_the_api_takes_whatever_is_allowed_here(tmp_path: Path) -> None:
    most = 3_932_160
    frame = len(pictures.png(1, 1, padding=1)) - 1
    (tmp_path / "full.png").write_bytes(pictures.png(1, 1, padding=most - frame))
    (tmp_path / "over.png").write_bytes(pictures.png(1, 1, padding=most - frame + 1))
    (full,) = blocks(tmp_path, "full.png", max_bytes=20 * MIB)
    assert len(full["source"]["data"]) == 5 * MIB
    assert refusal(tmp_path, "over.png", max_bytes=20 * MIB) == (
        "'over.png' is a picture of 3932161 bytes, and 3932160 is the most that Claude's API takes: make it smaller"
    )


def test_files_are_counted_before_any_is_opened(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("text")
    assert len(blocks(tmp_path, "a", "a", max_count=2)) == 2
    assert refusal(tmp_path, "a", "a", "missing", max_count=2) == (
        "a message may have at most 2 files (claude.max_attachments), and this one has 3"
    )


@pytest.mark.parametrize("kind", ["pdf", "escaped text"])
def test_all_files_together_fit_into_one_request(tmp_path: Path, kind: str) -> None:
    """By what is sent: of base64 four bytes for three, of a character that JSON escapes six."""
    data = b"%PDF-1.7\n" + bytes(11_000_000) if kind == "pdf" else b"x" + b"\x01" * 2_450_000
    (tmp_path / "half").write_bytes(data)
    (tmp_path / "most").write_bytes(data[: len(data) * 9 // 10])
    assert len(blocks(tmp_path, "half", "most", max_bytes=20 * MIB)) == 2
    assert refusal(tmp_path, "half", "most", "most", max_bytes=20 * MIB) == (
        "the files have more than 30000000 bytes in all as they are sent, and Claude's API takes 32 MB: send fewer, or "
        "some of them in another conversation"
    )


def test_reading_does_not_hold_the_loop_and_ends_when_nobody_waits(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("text")
    may_go_on = threading.Event()

    async def run() -> None:
        with ThreadPoolExecutor(1) as executor:
            executor.submit(may_go_on.wait, 20)  # the only thread is busy, and so is whoever wants to read
            attachments = Attachments(Roots([tmp_path]), AttachmentLimits(max_bytes=9, max_count=1), executor)
            reading = asyncio.create_task(attachments.read(["a"]))
            for _ in range(10):
                await asyncio.sleep(0)  # the loop turns
            assert not reading.done()
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            may_go_on.set()
            assert len(await attachments.read(["a"])) == 1

    asyncio.run(run())


def test_blocks_come_back_from_storage_and_reach_the_request_unchanged(tmp_path: Path) -> None:
    for name, data in {"a.png": pictures.PNG, "b.pdf": pictures.PDF, "c.txt": "Grüße".encode()}.items():
        (tmp_path / name).write_bytes(data)
    read = blocks(tmp_path, "a.png", "b.pdf", "c.txt")
    stored = json.loads(json.dumps(read))
    message = Message("user", (*map(block_from_json, stored), Text("What is this?")))
    (turn,) = Transcript([message]).turns
    assert turn == {"role": "user", "content": [*read, {"type": "text", "text": "What is this?"}]}
