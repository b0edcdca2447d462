from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from support.tool_calls import ToolBench
from tfo_mcp.domain.tool import ToolResult
from tfo_mcp.infrastructure.tools.roots import Roots
from tfo_mcp.infrastructure.tools.writing import writing_tools

MOST = 1000
OWN = "the server's own"
FORBIDDEN = "not to be touched"


class World:
    """`root` and `second` are open, `outside` is not; `state` (inside `root`) and two files are the server's."""

    def __init__(self, folder: Path) -> None:
        folder = folder.resolve()
        self.root, self.second, self.outside = folder / "root", folder / "second", folder / "outside"
        self.state = self.root / ".state"
        for made in (self.root / "sub", self.second, self.outside, self.state):
            made.mkdir(parents=True)
        (self.root / "old.txt").write_text("old")
        (self.outside / "secret.txt").write_text(FORBIDDEN)
        (self.state / "tfo-mcp.db").write_text(OWN)
        (self.root / "server.log").write_text(OWN)
        self.roots = Roots(
            [self.root, self.second],
            denied=[self.state, self.root / "server.log", self.root / "etc" / "tfo-mcp" / "config.yaml"],
        )
        self.bench = ToolBench(writing_tools(self.roots, max_bytes=MOST))

    def write(self, path: str | Path, content: str = "new", **arguments: object) -> ToolResult:
        return self.bench.run("write_file", path=str(path), content=content, **arguments)

    def files(self) -> dict[str, str]:
        """All that is in the whole world, with the content of files."""
        return {
            str(path.relative_to(self.root.parent)): path.read_text() if path.is_file() else ""
            for path in self.root.parent.rglob("*")
            if not path.is_symlink()
        }


@contextmanager
def umask(mask: int) -> Generator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def open_descriptors() -> set[str]:
    return set(os.listdir("/dev/fd"))  # noqa: PTH208  # pathlib would ask for the status of a descriptor that is gone


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- what it writes ----------------------------------------------------------------------------------------


def test_a_new_file_is_written_and_described(tmp_path: Path) -> None:
    world = World(tmp_path)

    result = world.write("sub/new.txt", "hé")

    assert result.structured == {"path": "sub/new.txt", "bytes_written": 3, "created": True}
    assert (world.root / "sub" / "new.txt").read_bytes() == "hé".encode()


@pytest.mark.behaviour("tools.acting.write-file")
def test_a_file_that_is_there_is_replaced(tmp_path: Path) -> None:
    world = World(tmp_path)

    result = world.write(world.root / "old.txt")

    assert result.structured == {"path": str(world.root / "old.txt"), "bytes_written": 3, "created": False}
    assert (world.root / "old.txt").read_text() == "new"


def test_content_is_written_in_the_encoding_and_as_it_is(tmp_path: Path) -> None:
    world = World(tmp_path)

    world.write("wide.txt", "a\r\nb\n", encoding="utf-16-le")

    assert (world.root / "wide.txt").read_bytes() == "a\r\nb\n".encode("utf-16-le")


@pytest.mark.parametrize(
    ("content", "encoding", "sentence"),
    [
        ("€", "latin-1", "content cannot be written in latin-1, which does not have all of its characters"),
        ("\ud800", "utf-8", "content cannot be written in utf-8, which does not have all of its characters"),
        ("x", "base64", "there is no text encoding 'base64'; try utf-8, utf-16, latin-1 or cp1252"),
        ("x" * (MOST + 1), "utf-8", f"content is over {MOST} bytes, which is the most that one call may write"),
        ("é" * MOST, "utf-8", f"content is over {MOST} bytes, which is the most that one call may write"),
    ],
)
def test_content_that_cannot_be_written_is_refused(tmp_path: Path, content: str, encoding: str, sentence: str) -> None:
    world = World(tmp_path)
    before = world.files()

    result = world.write("old.txt", content, encoding=encoding)

    assert (result.is_error, result.text) == (True, sentence)
    assert world.files() == before


def test_folders_are_made_when_asked_for_and_only_then(tmp_path: Path) -> None:
    world = World(tmp_path)

    refused = world.write("a/b/c.txt")
    assert (refused.is_error, refused.text) == (True, "a folder of 'a/b/c.txt' is missing; create_dirs makes it")
    assert not (world.root / "a").exists()

    assert not world.write("a/b/c.txt", create_dirs=True).is_error
    assert (world.root / "a" / "b" / "c.txt").read_text() == "new"


def test_a_new_file_has_the_mode_that_the_umask_leaves_and_an_old_one_keeps_its_own(tmp_path: Path) -> None:
    world = World(tmp_path)
    (world.root / "old.txt").chmod(0o6751)

    with umask(0o027):
        world.write("new.txt")
        world.write("old.txt")

    assert mode_of(world.root / "new.txt") == 0o640
    assert mode_of(world.root / "old.txt") == 0o751, "what it was trusted with goes, as with every write"


def test_a_link_inside_the_roots_stays_and_what_it_leads_to_is_replaced(tmp_path: Path) -> None:
    world = World(tmp_path)
    (world.root / "link").symlink_to("sub/chain")
    (world.root / "sub" / "chain").symlink_to(world.second / "real.txt")

    first, again = world.write("link", "one"), world.write("link", "two")

    assert (first.structured or {})["created"]
    assert not (again.structured or {})["created"]
    assert (world.root / "link").is_symlink()
    assert (world.second / "real.txt").read_text() == "two"


def test_other_names_of_a_file_keep_its_old_content(tmp_path: Path) -> None:
    world = World(tmp_path)
    (world.root / "other-name").hardlink_to(world.root / "old.txt")

    world.write("old.txt")

    assert (world.root / "other-name").read_text() == "old"


# --- what it refuses ---------------------------------------------------------------------------------------


@pytest.mark.behaviour("tools.acting.write-file")
@pytest.mark.parametrize(
    "path",
    [
        "../outside/new.txt",
        "../outside/secret.txt",
        "sub/../../outside/new.txt",
        "made/../../outside/new.txt",
        "{outside}/new.txt",
        "{root}-beside/new.txt",
        "/etc/tfo-mcp-test",
        "/proc/self/cwd/new.txt",
        "/proc/self/root{outside}/new.txt",
        "%2e%2e/outside/../../x/new.txt",
        "to-file",
        "to-nothing",
        "to-folder/new.txt",
        "to-folder/made/new.txt",
        "up/outside/new.txt",
        "slash{outside}/new.txt",
        "process{outside}/new.txt",
        "loop",
        "loop/new.txt",
        "nul\0.txt",
        "",
        ".",
        "..",
        "sub",
        "sub/",
        "made/",
        "pipe",
    ],
)
@pytest.mark.parametrize("create_dirs", [False, True])
def test_nothing_is_written_outside_the_roots_or_in_place_of_what_is_no_file(
    tmp_path: Path, path: str, *, create_dirs: bool
) -> None:
    world = World(tmp_path)
    links = {
        "to-file": "../outside/secret.txt",
        "to-nothing": "../outside/nothing.txt",
        "to-folder": "../outside",
        "up": "..",
        "slash": "/",
        "process": "/proc/self/root",
        "loop": "loop",
    }
    for name, target in links.items():
        (world.root / name).symlink_to(target)
    os.mkfifo(world.root / "pipe")
    before, descriptors = world.files(), open_descriptors()

    result = world.write(path.format(outside=world.outside, root=world.root), create_dirs=create_dirs)

    assert result.is_error, result.text
    assert world.files() == before
    assert open_descriptors() == descriptors


@pytest.mark.behaviour("tools.access.own-files")
@pytest.mark.parametrize(
    "path",
    [
        ".state/new.txt",
        ".state/tfo-mcp.db",
        ".state",
        "server.log",
        "link-to-state/new.txt",
        "link-to-log",
        "hard-link",
        "etc/tfo-mcp/config.yaml",  # the next start would read it
        "etc/TFO-MCP/Config.yaml",
    ],
)
def test_the_servers_own_files_are_refused_whatever_their_name_and_before_they_are_there(
    tmp_path: Path, path: str
) -> None:
    world = World(tmp_path)
    (world.root / "link-to-state").symlink_to(".state")
    (world.root / "link-to-log").symlink_to("server.log")
    (world.root / "hard-link").hardlink_to(world.state / "tfo-mcp.db")
    before = world.files()

    result = world.write(path, create_dirs=True)

    assert result.text == f"{path!r} is one of the server's own files, which file tools never touch"
    assert world.files() == before
    assert world.bench.executed == [("write_file", "failed", "path_refused")]


@pytest.mark.parametrize(
    "path",
    [
        ".git",
        ".git/config",
        ".git/hooks/pre-commit",
        ".GIT/config",
        ".g\u200cit/config",
        "sub/.git/hooks/post-checkout",
        "sub/.git",
        "link-to-git/config",
        "link-to-hooks/pre-commit",
        "bare/config",
        "bare/hooks/update",
    ],
)
def test_what_git_runs_programs_for_is_refused(tmp_path: Path, path: str) -> None:
    world = World(tmp_path)
    for repository in (".git", "bare"):
        for part in ("objects", "refs", "hooks"):
            (world.root / repository / part).mkdir(parents=True)
        (world.root / repository / "HEAD").write_text("ref: refs/heads/main\n")
        (world.root / repository / "config").write_text("[core]\n")
    (world.root / "link-to-git").symlink_to(".git")
    (world.root / "link-to-hooks").symlink_to(".git/hooks")
    before = world.files()

    result = world.write(path, "[core]\nfsmonitor = touch /tmp/x\n", create_dirs=True)

    assert result.text == (
        f"{path!r} is part of a git repository's own folder, which file tools never write to: "
        "its configuration and hooks run programs"
    )
    assert world.files() == before


def test_a_file_beside_a_repositorys_folder_is_written(tmp_path: Path) -> None:
    world = World(tmp_path)
    (world.root / ".git").mkdir()

    assert not world.write(".gitignore").is_error
    assert not world.write("x.git/config", create_dirs=True).is_error


def test_a_file_that_may_not_be_written_is_not_replaced_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path)

    def no(*arguments: object, **more: object) -> bool:  # root, who runs many tests, may write everything
        return False

    with monkeypatch.context() as patch:
        patch.setattr(os, "access", no)
        result = world.write("old.txt")

    assert result.text == "the server has no permission to write 'old.txt'"
    assert (world.root / "old.txt").read_text() == "old"


def test_without_roots_nothing_is_written(tmp_path: Path) -> None:
    bench = ToolBench(writing_tools(Roots([]), max_bytes=MOST))

    assert "tools.roots" in bench.run("write_file", path=str(tmp_path / "x"), content="x").text
    assert list(tmp_path.iterdir()) == []


# --- what goes wrong meanwhile -----------------------------------------------------------------------------


@pytest.mark.behaviour("tools.acting.write-file")
@pytest.mark.parametrize("broken", ["write", "fsync", "rename", "fchmod"])
def test_a_write_that_fails_leaves_the_old_file_and_no_other(
    tmp_path: Path, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)
    before, descriptors = world.files(), open_descriptors()

    def fail(*arguments: object, **more: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, broken, fail)
        result = world.write("old.txt")

    assert result.text == "'old.txt' cannot be written: No space left on device"
    assert world.files() == before
    assert open_descriptors() == descriptors


def test_a_call_that_nobody_waits_for_any_more_replaces_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)
    world.bench = ToolBench(writing_tools(world.roots, max_bytes=MOST), timeout=0.05)
    before, released = world.files(), threading.Event()
    fsync = os.fsync

    def slow(descriptor: int) -> None:
        released.wait(10)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", slow)
    result = world.write("old.txt")
    released.set()
    world.bench.executor.shutdown()

    assert result.text == "'write_file' did not finish within 0.05 s and was stopped"
    assert world.files() == before


def swapping(swap: Callable[[], None], done: threading.Event) -> threading.Thread:
    def go_on() -> None:
        while not done.is_set():
            swap()

    thread = threading.Thread(target=go_on)
    thread.start()
    return thread


@pytest.mark.behaviour("tools.acting.write-file")
@pytest.mark.parametrize("swapped", ["folder", "file"])
def test_nothing_is_written_outside_while_the_path_is_being_swapped(tmp_path: Path, swapped: str) -> None:
    world = World(tmp_path)
    moving = world.root / "moving"
    kept, link = world.root / "kept", world.root / "link"
    if swapped == "folder":
        kept.mkdir()
        link.symlink_to(world.outside)
    else:
        kept.write_text("kept")
        link.symlink_to(world.outside / "secret.txt")

    def swap() -> None:
        for source in (kept, link):
            with suppress(OSError):  # the tool may have put a file in the place
                source.rename(moving)
                moving.rename(source)

    done = threading.Event()
    thread = swapping(swap, done)
    until, written = time.monotonic() + 2, 0
    try:
        while time.monotonic() < until:
            path = "moving/new.txt" if swapped == "folder" else "moving"
            written += not world.write(path).is_error
    finally:
        done.set()
        thread.join()

    assert {name: text for name, text in world.files().items() if name.startswith("outside/")} == {
        "outside/secret.txt": FORBIDDEN
    }
    assert written > 0
    assert not list(world.root.parent.rglob("*.tmp"))
