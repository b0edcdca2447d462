from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support.bubblewrap import require
from support.tool_calls import ToolBench
from tfo_mcp.domain.errors import ToolFailure
from tfo_mcp.domain.tool import ToolResult
from tfo_mcp.infrastructure.tools.files import FileLimits, file_tools
from tfo_mcp.infrastructure.tools.roots import Roots, default_roots, failure_of

FORBIDDEN = "the secret of the machine"
OWN = "the server's own"
PATIENCE = 10.0


class World:
    """`root` and `second` are open, `outside` is not, `state` (inside `root`) is the server's."""

    def __init__(self, folder: Path) -> None:
        folder = folder.resolve()
        self.root, self.second, self.outside = folder / "root", folder / "second", folder / "outside"
        self.state = self.root / ".state"
        for made in (self.root / "sub" / "deep", self.second, self.outside, self.state / "locks"):
            made.mkdir(parents=True)
        (self.root / "hello.txt").write_text("hello")
        (self.root / "sub" / "inner.txt").write_text("inner")
        (self.second / "other.txt").write_text("other")
        (self.outside / "secret.txt").write_text(FORBIDDEN)
        (self.state / "tfo-mcp.db").write_text(OWN)
        (self.state / "locks" / "one.lock").write_text(OWN)
        (self.outside / "config.yaml").write_text(OWN)
        self.roots = Roots([self.root, self.second], denied=[self.state, self.outside / "config.yaml"])
        self.bench = ToolBench(file_tools(self.roots, FileLimits()))

    def link(self, name: str, target: str | Path) -> None:
        (self.root / name).symlink_to(target)

    def read(self, path: str) -> ToolResult:
        return self.bench.run("read_file", path=path)

    def everything(self, path: str) -> list[ToolResult]:
        """What each of the file tools has to say about `path`."""
        return [
            self.read(path),
            self.bench.run("list_directory", path=path, recursive=True),
            self.bench.run("search_files", path=path, pattern="**"),
        ]


def open_descriptors() -> set[str]:
    return set(os.listdir("/dev/fd"))  # noqa: PTH208  # pathlib would ask for the status of a descriptor that is gone


@pytest.mark.behaviour("tools.access.roots")
@pytest.mark.parametrize(
    "path",
    [
        "../outside/secret.txt",
        "../outside",
        "..",
        "../",
        "../root/hello.txt",  # leaves the root, if only to come back
        "sub/../../outside/secret.txt",
        "sub/deep/../../../outside/secret.txt",
        "./././../outside/secret.txt",
        "sub//..//..//outside//secret.txt",
        "missing/../../outside/secret.txt",
        "{outside}/secret.txt",
        "{root}/../outside/secret.txt",
        "/{outside}/secret.txt",
        "{root}-beside/secret.txt",
        "/etc/passwd",
        "/",
        "/proc/self/environ",
        "/proc/self/cwd/../outside/secret.txt",
        "/dev/fd/0",
        "%2e%2e/outside/secret.txt",
        "..%2foutside%2fsecret.txt",
        "%252e%252e/outside/secret.txt",
        "..\\outside\\secret.txt",
        "．．/outside/secret.txt",  # noqa: RUF001  # the trick is that they look like dots
        "․․/outside/secret.txt",  # noqa: RUF001
        "..\u200b/outside/secret.txt",
        "..\u2215outside\u2215secret.txt",
        ".. /outside/secret.txt",
        "..\x00/outside/secret.txt",
        "hello.txt\x00/../../outside/secret.txt",
        "file://{outside}/secret.txt",
        "~/../outside/secret.txt",
        "$HOME",
        "${{PWD}}/../outside/secret.txt",
        "to-file",
        "to-folder",
        "to-folder/",
        "to-folder/secret.txt",
        "to-folder/../hello.txt",
        "absolute",
        "absolute/secret.txt",
        "up",
        "up/outside/secret.txt",
        "sub/up",
        "chain-1",
        "loop-1",
        "loop-1/x",
        "itself",
        "slash",
        "slash{outside}/secret.txt",
        "process",
        "process{outside}/secret.txt",
        "process/etc/passwd",
        "descriptor",
        "relative-into-second",
        "dangling-outside",
    ],
)
def test_no_path_leads_outside(tmp_path: Path, path: str) -> None:
    world = World(tmp_path)
    world.link("to-file", "../outside/secret.txt")
    world.link("to-folder", "../outside")
    world.link("absolute", world.outside)
    world.link("up", "..")
    world.link("sub/up", "../../outside/secret.txt")
    world.link("chain-1", "chain-2")
    world.link("chain-2", "sub/chain-3")
    world.link("sub/chain-3", "../to-file")
    world.link("loop-1", "loop-2")
    world.link("loop-2", "loop-1")
    world.link("itself", "itself/itself")
    world.link("slash", "/")
    world.link("process", "/proc/self/root")
    world.link("descriptor", "/proc/self/fd/0")
    world.link("relative-into-second", "../second")
    world.link("dangling-outside", "../outside/nothing")
    path = path.format(root=world.root, outside=world.outside)
    before = open_descriptors()

    for result in world.everything(path):
        assert result.is_error
        assert FORBIDDEN not in result.text
        assert "\n" not in result.text
        assert str(world.outside) not in result.text.replace(path, "")

    assert world.bench.reports == []
    assert open_descriptors() <= before


@pytest.mark.behaviour("tools.access.roots")
@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("hello.txt", "hello"),
        ("./hello.txt", "hello"),
        ("sub//inner.txt", "inner"),
        ("sub/deep/../inner.txt", "inner"),
        ("sub/../sub/./deep/../../hello.txt", "hello"),
        ("{root}/sub/inner.txt", "inner"),
        ("{second}/other.txt", "other"),
        ("~/note", "a folder named ~"),
        ("to-file", "inner"),
        ("to-folder/inner.txt", "inner"),
        ("to-folder/../hello.txt", "hello"),  # as the kernel has it: up from where the link leads
        ("absolute/inner.txt", "inner"),
        ("into-second/other.txt", "other"),
        ("chain-40", "hello"),
    ],
)
def test_what_stays_inside_can_be_read(tmp_path: Path, path: str, content: str) -> None:
    world = World(tmp_path)
    (world.root / "~").mkdir()
    (world.root / "~" / "note").write_text("a folder named ~")
    world.link("to-file", "sub/inner.txt")
    world.link("to-folder", "sub/../sub/")
    world.link("absolute", world.root / "sub")
    world.link("into-second", world.second)
    world.link("chain-1", "hello.txt")
    for number in range(2, 42):
        world.link(f"chain-{number}", f"chain-{number - 1}")

    assert world.read(path.format(root=world.root, second=world.second)).text == content
    assert "more than 40 symbolic links" in world.read("chain-41").text


def test_a_root_that_is_a_link_goes_by_both_its_names(tmp_path: Path) -> None:
    world = World(tmp_path)
    spelled = tmp_path / "spelled"
    spelled.symlink_to(world.root)
    bench = ToolBench(file_tools(Roots([spelled]), FileLimits()))
    world.link("absolute", world.root / "hello.txt")

    for path in ("hello.txt", f"{spelled}/hello.txt", f"{world.root}/hello.txt", "absolute"):
        assert bench.run("read_file", path=path).text == "hello"


@pytest.mark.behaviour("tools.access.own-files")
@pytest.mark.parametrize(
    "path",
    [
        ".state",
        ".state/",
        ".state/tfo-mcp.db",
        ".state/locks/one.lock",
        ".state/missing",
        ".state/../hello.txt",
        "sub/../.state/tfo-mcp.db",
        "{root}/.state/tfo-mcp.db",
        "link-to-state/tfo-mcp.db",
        "link-to-file",
        "hard-link",
        "hard-link-of-a-lock",
        "hard-link-of-the-configuration",
    ],
)
def test_the_servers_own_files_are_refused_whatever_they_are_called(tmp_path: Path, path: str) -> None:
    world = World(tmp_path)
    world.link("link-to-state", ".state")
    world.link("link-to-file", ".state/tfo-mcp.db")
    (world.root / "hard-link").hardlink_to(world.state / "tfo-mcp.db")
    (world.root / "hard-link-of-a-lock").hardlink_to(world.state / "locks" / "one.lock")
    (world.root / "hard-link-of-the-configuration").hardlink_to(world.outside / "config.yaml")

    for result in world.everything(path.format(root=world.root)):
        assert result.is_error
        assert OWN not in result.text.replace("the server's own files", "")
        assert "is one of the server's own files" in result.text


@pytest.mark.behaviour("tools.access.own-files")
def test_the_servers_own_files_appear_in_no_listing(tmp_path: Path) -> None:
    world = World(tmp_path)
    (world.root / "hard-link-of-the-configuration").hardlink_to(world.outside / "config.yaml")

    listing = world.bench.run("list_directory", recursive=True)
    search = world.bench.run("search_files", pattern="**")

    assert listing.structured == {
        "path": ".",
        "entries": [
            {"name": "hello.txt", "type": "file", "size": 5},
            {"name": "sub", "type": "directory"},
            {"name": "sub/deep", "type": "directory"},
            {"name": "sub/inner.txt", "type": "file", "size": 5},
        ],
        "total": 4,
        "truncated": False,
    }
    assert search.structured is not None
    assert search.structured["matches"] == ["hello.txt", "sub", "sub/deep", "sub/inner.txt"]


def test_a_hard_link_between_other_files_is_no_offence(tmp_path: Path) -> None:
    world = World(tmp_path)
    (world.root / "again.txt").hardlink_to(world.root / "hello.txt")
    assert world.read("again.txt").text == "hello"


def test_another_view_of_the_servers_own_process_is_refused_too(tmp_path: Path) -> None:
    require("bubblewrap")
    (tmp_path / "proc").mkdir()
    (tmp_path / "file").write_text("content")
    read = (
        "import sys; from pathlib import Path; from tfo_mcp.infrastructure.tools.roots import Roots\n"
        "with Roots([Path(sys.argv[1])]).open(sys.argv[2]) as opened: print('opened', opened.status.st_size)"
    )
    command = [
        "bwrap",
        "--unshare-pid",
        "--dev-bind",
        "/",
        "/",
        "--proc",
        str(tmp_path / "proc"),
        sys.executable,
        "-c",
        read,
    ]

    said = {
        path: subprocess.run([*command, str(tmp_path), path], capture_output=True, text=True, check=False)
        for path in ("file", "proc", "proc/self/environ", "proc/1/root/etc/passwd")
    }

    assert said.pop("file").stdout == "opened 7\n"
    assert all("one of the server's own files" in run.stderr and not run.stdout for run in said.values()), said


def test_the_servers_own_process_is_refused_even_below_the_root_of_all(tmp_path: Path) -> None:
    bench = ToolBench(file_tools(Roots([Path("/")]), FileLimits()))
    (tmp_path / "hello.txt").write_text("hello")

    assert bench.run("read_file", path=str(tmp_path / "hello.txt")).text == "hello"
    assert bench.run("read_file", path="/proc/self/environ").is_error
    assert bench.run("read_file", path="/dev/fd/../environ").is_error
    assert bench.run("list_directory", path="/proc").is_error


@pytest.mark.parametrize("path", ["", "x" * 5000, "x/" * 3000, "x" * 300, "hello.txt\0", "half \udfff a pair"])
def test_what_is_no_path_is_one_sentence(tmp_path: Path, path: str) -> None:
    with pytest.raises(ToolFailure, match=r"^[^\n]{1,260}$"), World(tmp_path).roots.open(path):
        pass


def test_a_path_of_more_folders_than_descriptors_is_refused(tmp_path: Path) -> None:
    world = World(tmp_path)
    deep = "/".join(["d"] * 100)
    (world.root / deep).mkdir(parents=True)
    before = open_descriptors()
    assert "folders deep" in world.read(deep).text
    assert open_descriptors() <= before


@pytest.mark.parametrize("path", ["hello.txt/", "hello.txt/.", "hello.txt/..", "hello.txt/x", "hello.txt//"])
def test_a_file_is_no_folder_on_the_way(tmp_path: Path, path: str) -> None:
    assert World(tmp_path).read(path).text == f"{path!r} goes through something that is not a folder"


def test_without_roots_the_tools_say_how_to_set_them() -> None:
    bench = ToolBench(file_tools(Roots([]), FileLimits()))
    for result in (
        bench.run("read_file", path="x"),
        bench.run("list_directory"),
        bench.run("search_files", pattern="*"),
    ):
        assert result.is_error
        assert "tools.roots" in result.text


def test_a_root_that_is_gone_is_said_so_and_may_come_back(tmp_path: Path) -> None:
    bench = ToolBench(file_tools(Roots([tmp_path / "later"]), FileLimits()))
    assert bench.run("list_directory").text == "there is no '.'"
    (tmp_path / "later").mkdir()
    assert bench.run("list_directory").text == "[empty]"


def test_a_platform_that_cannot_open_safely_has_no_file_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path)
    monkeypatch.setattr(os, "supports_dir_fd", set[object]())
    for result in world.everything("hello.txt"):
        assert result.is_error
        assert "off on this platform" in result.text


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (errno.ENOENT, "there is no 'some/path'"),
        (errno.EACCES, "the server has no permission to read 'some/path'"),
        (errno.EPERM, "the server has no permission to read 'some/path'"),
        (errno.EIO, "'some/path' cannot be read: Input/output error"),
        (None, "'some/path' cannot be read: OSError"),
    ],
)
def test_a_failed_operation_is_one_sentence_without_the_real_path(number: int | None, sentence: str) -> None:
    error = OSError() if number is None else OSError(number, os.strerror(number), "/real/path")
    assert str(failure_of(error, "some/path")) == sentence


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_link(path: Path) -> None:
    path.symlink_to("../outside/secret.txt")


def make_folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("kind", ["fifo", "device"])
def test_what_is_no_regular_file_is_refused_without_opening_it(tmp_path: Path, kind: str) -> None:
    world = World(tmp_path)
    os.mkfifo(world.root / "fifo")
    bench = ToolBench(file_tools(Roots([world.root, Path("/dev")]), FileLimits()), timeout=PATIENCE)
    result = bench.run("read_file", path={"fifo": "fifo", "device": "/dev/zero"}[kind])
    assert result.is_error
    assert "is a device, pipe or socket" in result.text


def swap_after_a_look(monkeypatch: pytest.MonkeyPatch, victim: Path, make: Callable[[Path], None]) -> None:
    """Put something else in `victim`'s place as soon as its status has been asked for."""
    look = os.stat

    def swapping(path: object, **options: object) -> os.stat_result:
        status = look(path, **options)  # type: ignore[call-overload]
        if path == victim.name and stat.S_IFMT(status.st_mode) and not victim.is_symlink() and victim.exists():
            victim.rename(victim.with_name("moved"))
            make(victim)
            monkeypatch.undo()
        return status

    monkeypatch.setattr(os, "stat", swapping)


@pytest.mark.parametrize("make", [make_fifo, make_link, make_folder])
def test_a_file_swapped_between_look_and_opening_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None]
) -> None:
    world = World(tmp_path)
    before = open_descriptors()
    swap_after_a_look(monkeypatch, world.root / "hello.txt", make)

    with pytest.raises(ToolFailure), world.roots.open("hello.txt"):
        pass

    assert open_descriptors() <= before


def test_a_folder_swapped_for_a_link_between_look_and_opening_is_not_entered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)
    swap_after_a_look(monkeypatch, world.root / "sub", lambda path: path.symlink_to(world.outside))

    with pytest.raises(ToolFailure, match="is not a folder"), world.roots.open("sub/secret.txt"):
        pass


@pytest.mark.behaviour("tools.access.roots")
def test_a_component_swapped_in_a_tight_loop_never_leads_outside(tmp_path: Path) -> None:
    world = World(tmp_path)
    (world.root / "sub" / "secret.txt").write_text("harmless")
    (world.outside / "only-outside.txt").touch()
    trap, spare = world.root / "trap", world.root / "spare"
    (world.root / "sub").rename(trap)
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            trap.rename(spare)
            trap.symlink_to(world.outside)
            trap.unlink()
            spare.rename(trap)

    swapper = threading.Thread(target=swap)
    swapper.start()
    before, outcomes = open_descriptors(), {"harmless": 0, "refused": 0}
    end = time.monotonic() + PATIENCE
    try:
        while min(outcomes.values()) < 20 and time.monotonic() < end:
            try:
                with world.roots.open("trap/secret.txt") as opened:
                    outcomes[os.read(opened.descriptor, 100).decode()] += 1  # KeyError: the secret was read
            except ToolFailure:
                outcomes["refused"] += 1
            assert "only-outside" not in world.bench.run("list_directory", recursive=True).text
    finally:
        stop.set()
        swapper.join()
    assert min(outcomes.values()) > 0
    assert open_descriptors() <= before


@pytest.mark.parametrize(
    ("cwd", "roots"),
    [("/", ()), ("/home", ()), ("/home/me", ()), ("/home/me/project", ("/home/me/project",)), ("/srv", ("/srv",))],
)
def test_the_working_directory_is_the_default_root_unless_home_is_in_it(
    tmp_path: Path, cwd: str, roots: tuple[str, ...]
) -> None:
    def real(path: str) -> Path:
        return Path("/") if path == "/" else tmp_path.resolve() / path[1:]

    for folder in ("/home/me/project", "/srv"):
        real(folder).mkdir(parents=True)
    (tmp_path / "home-by-another-name").symlink_to(real("/home/me"))

    for home in (real("/home/me"), tmp_path / "home-by-another-name"):
        assert default_roots(real(cwd), home) == tuple(map(real, roots))
