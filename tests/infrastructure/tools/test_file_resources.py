from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tfo_mcp.domain.completion import Completion
from tfo_mcp.domain.errors import DomainError
from tfo_mcp.domain.resource import Reader, ResourceTemplate
from tfo_mcp.domain.session import Session
from tfo_mcp.infrastructure.tools.file_resources import file_template
from tfo_mcp.infrastructure.tools.files import FileLimits
from tfo_mcp.infrastructure.tools.roots import Roots

SECRET = "the secret 4711"  # noqa: S105  # nobody's

READER = Reader("local", Session())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Generator[tuple[ResourceTemplate, Path]]:
    """The template over one root, beside which and in whose denied folder lie secrets."""
    folder = tmp_path_factory.mktemp("world")
    root = folder / "root"
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "own").mkdir()
    (root / "sub" / "note").write_text("hello")
    for place in (folder / "secret", root / "own" / "secret"):
        place.write_text(SECRET)
    (root / "link").symlink_to("../secret")
    (root / "sub" / "up").symlink_to("..")
    (root / "far").symlink_to(folder)
    (root / "hard").hardlink_to(root / "own" / "secret")
    with ThreadPoolExecutor(1) as executor:
        yield file_template(Roots([root], denied=[root / "own"]), FileLimits(), executor), root


PIECES = st.sampled_from([
    "..", ".", "", "sub", "deep", "note", "up", "link", "far", "own", "secret", "hard", "root", "%2e%2e", "%2E.",
    "%2f", "..%2f", "%2f..", "%252e%252e", "%00", "%", "\\", "..\\", "~", "*", "?", "#", " ", "%20", "ä", "%c3",
    "proc", "self",
])  # fmt: skip


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(PIECES, max_size=9), start=st.sampled_from(["{root}", "{root}/..", "", "/", "{root}/sub"]))
def test_no_uri_gives_a_secret_and_no_completion_names_one(
    world: tuple[ResourceTemplate, Path], pieces: list[str], start: str
) -> None:
    template, root = world
    path = "/".join([start.format(root=root), *pieces])

    async def ask() -> tuple[str, Completion]:
        try:
            content = await template.read(f"file://{path}", READER)
        except DomainError as error:
            given = str(error)
        else:
            assert content.data == "hello"
            given = "hello"
        return given, await template.complete(path, READER)

    given, completion = asyncio.run(ask())
    assert SECRET not in given
    for value in completion.values:
        assert value.startswith(path)
        offered = Path(f"/{value.lstrip('/')}")
        assert offered.resolve().is_relative_to(root.resolve())
        assert offered.name not in {"own", "hard", "secret", "link", "far"}


def test_reading_never_holds_the_event_loop(world: tuple[ResourceTemplate, Path]) -> None:
    _, root = world
    busy, over = threading.Event(), threading.Event()

    def occupy() -> None:
        busy.set()
        over.wait()

    async def scenario() -> None:
        with ThreadPoolExecutor(1) as executor:
            template = file_template(Roots([root]), FileLimits(), executor)
            executor.submit(occupy)
            busy.wait()
            reading = asyncio.ensure_future(template.read(f"file://{root}/sub/note", READER))
            completing = asyncio.ensure_future(template.complete(f"{root}/s", READER))
            for _ in range(100):
                await asyncio.sleep(0)
            assert not reading.done()
            assert not completing.done()
            over.set()
            assert (await reading).data == "hello"
            assert (await completing).values == [f"{root}/sub/"]

    asyncio.run(scenario())


def test_of_a_folder_with_too_many_entries_it_is_said_that_there_may_be_more(tmp_path: Path) -> None:
    for number in range(10_001):
        (tmp_path / f"{number:05}").touch()

    async def scenario() -> None:
        with ThreadPoolExecutor(1) as executor:
            template = file_template(Roots([tmp_path]), FileLimits(), executor)
            completion = await template.complete(f"{tmp_path}/0000", READER)
            assert len(completion.values) <= 10
            assert (completion.total, completion.has_more) == (None, True)

    asyncio.run(scenario())


def test_a_name_that_is_no_unicode_is_read_by_its_bytes_and_never_offered(tmp_path: Path) -> None:
    name = b"caf\xe9"
    path = str(tmp_path).encode() + b"/" + name
    Path(path.decode("utf-8", "surrogateescape")).write_text("au lait")
    (tmp_path / "cafe").write_text("")

    async def scenario() -> None:
        with ThreadPoolExecutor(1) as executor:
            template = file_template(Roots([tmp_path]), FileLimits(), executor)
            assert (await template.read(f"file://{tmp_path}/caf%E9", READER)).data == "au lait"
            assert (await template.complete(f"{tmp_path}/c", READER)).values == [f"{tmp_path}/cafe"]

    asyncio.run(scenario())
