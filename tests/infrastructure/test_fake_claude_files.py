"""Pictures and documents, as the stand-in counts them and refuses them; sent by the real SDK or straight to it."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from typing import TYPE_CHECKING, Any, cast

import httpx2
import pytest

from support import pictures
from support.sdk import with_sdk
from tfo_mcp.infrastructure.fake_claude import Script, build_app

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anthropic import AsyncAnthropic

Json = dict[str, Any]

HEADERS = {"x-api-key": "x", "anthropic-version": "2026-10-21"}
HI = {"type": "text", "text": "What is this?"}
NEW, OLD, SMALL = "claude-opus-5-5", "claude-opus-4-6", "claude-haiku-4-5"
WHERE = "messages.0.content.0"


def image(data: bytes, media_type: str = "image/png") -> Json:
    return {"type": "image", "source": source(data, media_type)}


def pdf(data: bytes = pictures.PDF, media_type: str = "application/pdf", **more: str) -> Json:
    return {"type": "document", "source": source(data, media_type), **more}


def note(text: str) -> Json:
    return {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": text}}


def source(data: bytes, media_type: str) -> Json:
    return {"type": "base64", "media_type": media_type, "data": b64encode(data).decode()}


def body(*blocks: Json, model: str = NEW) -> Json:
    return {"model": model, "max_tokens": 100, "messages": [{"role": "user", "content": [*blocks, HI]}]}


def answers(*bodies: Json, path: str = "/v1/messages") -> Sequence[Json]:
    """What the stand-in says to each; `status` too."""

    async def run() -> list[Json]:
        transport = httpx2.ASGITransport(app=build_app(Script()))
        async with httpx2.AsyncClient(transport=transport, base_url="http://fake", headers=HEADERS) as client:
            said = [await client.post(path, json=each) for each in bodies]
            return [{**answer.json(), "status": answer.status_code} for answer in said]

    return asyncio.run(run())


def counts(*bodies: Json) -> Sequence[int]:
    """How many tokens each prompt has."""
    prompts = [{name: value for name, value in each.items() if name != "max_tokens"} for each in bodies]
    return [said["input_tokens"] for said in answers(*prompts, path="/v1/messages/count_tokens")]


def added(*blocks: Json, model: str = NEW) -> int:
    """How many tokens a prompt has more with `blocks` than without them."""
    without, with_them = counts(body(model=model), body(*blocks, model=model))
    return with_them - without


def problem(request: Json) -> str:
    (said,) = answers(request)
    assert said["status"] == 400, said
    return said["error"]["message"]


# --- what they count ---


@pytest.mark.parametrize(
    ("width", "height", "model", "tokens"),
    [
        (1, 1, NEW, 1),
        (28, 28, NEW, 1),
        (29, 28, NEW, 2),
        (256, 256, NEW, 100),
        (1280, 720, NEW, 1196),
        (1280, 720, OLD, 1196),
        (1920, 1080, NEW, 2691),
        (1920, 1080, OLD, 1568),
        (8000, 8000, NEW, 4784),
        (8000, 8000, SMALL, 1568),
    ],
)
def test_a_picture_counts_by_its_pixels(width: int, height: int, model: str, tokens: int) -> None:
    assert added(image(pictures.png(width, height)), model=model) == tokens


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (pictures.PNG, "image/png"),
        (pictures.JPEG, "image/jpeg"),
        (pictures.GIF, "image/gif"),
        (pictures.EXTENDED_WEBP, "image/webp"),
        (pictures.png(37, 21, padding=1_000_000), "image/png"),
    ],
    ids=["png", "jpeg", "gif", "webp", "large"],
)
def test_a_picture_counts_the_same_whatever_its_type_and_bytes(data: bytes, media_type: str) -> None:
    assert added(image(data, media_type)) == 2


def test_a_pdf_counts_by_its_pages() -> None:
    two = added(pdf())
    assert 4500 < two < 4550
    assert added(pdf(pictures.PDF + b"%" + bytes(1_000_000))) == two
    assert added(pdf(b"%PDF-1.7 whose pages are compressed")) == two - 2250
    assert added(pdf(title="x" * 30)) > two


def test_a_text_counts_as_texts_do() -> None:
    assert added(note("x" * 3000)) - added(note("x")) == pytest.approx(1000, abs=1)


def test_what_is_in_a_tools_result_counts_the_same() -> None:
    def request(*content: Json) -> Json:
        call: Json = {"type": "tool_use", "id": "a", "name": "look", "input": {}}
        result = {"type": "tool_result", "tool_use_id": "a", "content": [*content, HI]}
        asked: list[Json] = [{"role": "user", "content": "x"}, {"role": "assistant", "content": [call]}]
        return {"model": NEW, "messages": [*asked, {"role": "user", "content": [result]}]}

    large = image(pictures.png(256, 256, padding=90_000))
    without, with_it = counts(request(), request(large))
    assert 100 <= with_it - without <= 101


def test_files_are_read_from_the_cache_as_anything_else() -> None:
    blocks = [image(pictures.png(1280, 720, padding=50_000)), pdf()]

    async def talk(claude: AsyncAnthropic) -> None:
        create = cast("Any", claude.messages.create)
        history = body(*blocks)
        first = (await create(**history, cache_control={"type": "ephemeral"})).usage
        assert (first.cache_read_input_tokens, first.input_tokens) == (0, 0)
        assert 5696 < first.cache_creation_input_tokens < 5800
        said = [{"role": "assistant", "content": "A picture."}, {"role": "user", "content": "And now?"}]
        again = {**history, "messages": [*history["messages"], *said]}
        second = (await create(**again, cache_control={"type": "ephemeral"})).usage
        assert second.cache_read_input_tokens == first.cache_creation_input_tokens

    with_sdk("", talk)


# --- what is refused ---


def changed(block: Json, **fields: object) -> Json:
    return {**block, "source": {**block["source"], **fields}}


@pytest.mark.parametrize(
    ("block", "refused"),
    [
        (changed(image(pictures.PNG), data="not base64"), ".image.source.base64.data: Invalid base64 data"),
        (
            changed(image(pictures.PNG), data="-" + image(pictures.PNG)["source"]["data"]),
            ".image.source.base64.data: Invalid base64 data",
        ),
        (changed(image(pictures.PNG), data="AAA"), ".image.source.base64.data: Invalid base64 data"),
        (changed(image(pictures.PNG), data=""), ".image.source.base64.data: Field required"),
        (image(pictures.PNG, "image/bmp"), ".image.source.base64.media_type: Input should be 'image/jpeg', "),
        (
            image(pictures.PNG, "image/jpeg"),
            ".image.source.base64: The image was specified using the image/jpeg media type, but the image appears to",
        ),
        (image(b"BM something else"), ".image.source.base64: Could not process image"),
        (image(pictures.PNG[:20]), ".image.source.base64: Could not process image"),
        (
            image(pictures.png(1, 1, padding=3_932_160)),
            ".image.source.base64: image exceeds 5 MB maximum: 5242",
        ),
        (
            image(pictures.png(8001, 1)),
            ".image.source.base64.data: At least one of the image dimensions exceed max allowed size: 8000 pixels",
        ),
        (pdf(b"no PDF"), ".document.source.base64.data: The PDF specified was not valid."),
        (pdf(media_type="text/plain"), ".document.source.base64.media_type: Input should be 'application/pdf'"),
        (note(" \n"), ".document.source.text.data: text content must contain non-whitespace text"),
        (changed(note("x"), media_type="text/html"), ".document.source.text.media_type: Input should be 'text/plain'"),
        ({"type": "image", "source": {}}, ".image.source: Field required"),
        ({"type": "document"}, ".document.source: Field required"),
    ],
)
def test_a_file_that_the_api_refuses_is_refused(block: Json, refused: str) -> None:
    assert problem(body(block)).startswith(f"{WHERE}{refused}")


def test_a_file_is_the_users_only() -> None:
    request = body()
    said = {"role": "assistant", "content": [image(pictures.PNG)]}
    request["messages"] = [*request["messages"], said, *request["messages"]]
    assert problem(request) == "messages.1.content.0: `image` blocks can only be in `user` messages"


def test_of_many_pictures_each_must_be_smaller() -> None:
    large, small = image(pictures.png(2001, 1)), image(pictures.png(2000, 1))
    accepted, refused = answers(body(*[small] * 19, large), body(*[small] * 20, large))
    assert accepted["status"] == 200
    assert refused["error"]["message"].startswith("messages.0.content.20.image.source.base64.data: ")
    assert refused["error"]["message"].endswith("exceed max allowed size for many-image requests: 2000 pixels")


@pytest.mark.parametrize(("model", "most"), [(SMALL, 100), (NEW, 600)])
def test_a_request_has_only_so_many_pictures(model: str, most: int) -> None:
    one = image(pictures.PNG)
    accepted, refused = answers(body(*[one] * most, model=model), body(*[one] * (most + 1), model=model))
    assert accepted["status"] == 200
    assert refused["error"]["message"] == f"messages: Too many images: {most + 1} > {most}"


@pytest.mark.parametrize(("model", "most"), [(SMALL, 100), (NEW, 600)])
def test_a_request_has_only_so_many_pages(model: str, most: int) -> None:
    window = "prompt is too long"  # long before that
    within = pdf(b"%PDF-1.7" + b"/Type /Page " * (most - 1))
    assert window in problem(body(within, pdf(b"%PDF-1.7"), model=model))
    refused = problem(body(within, pdf(), model=model))
    assert refused == f"messages: A maximum of {most} PDF pages may be provided."
