from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.tool_calls import ToolBench
from tfo_mcp.application.tool_handler import CallAbandoned
from tfo_mcp.domain.tool import ToolContext, ToolMode, ToolRegistry
from tfo_mcp.infrastructure.tools.echo import echo_tools
from tfo_mcp.infrastructure.tools.files import FileLimits, file_tools
from tfo_mcp.infrastructure.tools.roots import Roots, identity
from tfo_mcp.infrastructure.tools.system import system_tools
from tfo_mcp.infrastructure.tools.tree import Tree, TreeLimits

PATIENCE = 10.0


def tools_of(root: Path, **limits: int) -> ToolBench:
    return ToolBench(file_tools(Roots([root]), FileLimits(**limits)), threads=1)


def fill(root: Path, *paths: str) -> None:
    """Make files, each holding its own path, and the folders they need; a path with a slash at its end is a folder."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        if path.endswith("/"):
            (root / path).mkdir(exist_ok=True)
        else:
            (root / path).write_text(path)


def open_descriptors() -> int:
    return len(os.listdir("/dev/fd"))  # noqa: PTH208  # pathlib would ask for the status of a descriptor that is gone


# --- read_file ---


def test_a_file_is_given_as_it_is(tmp_path: Path) -> None:
    content = "first\r\n\tsecond \N{SNOWMAN}\n\n"
    (tmp_path / "a.txt").write_bytes(content.encode())
    result = tools_of(tmp_path).run("read_file", path="a.txt")
    assert (result.text, result.is_error) == (content, False)
    assert result.structured == {
        "path": "a.txt",
        "content": content,
        "encoding": "utf-8",
        "size": len(content.encode()),
        "truncated": False,
    }


def test_an_empty_file_is_empty(tmp_path: Path) -> None:
    fill(tmp_path, "empty")
    (tmp_path / "empty").write_bytes(b"")
    assert tools_of(tmp_path).run("read_file", path="empty").text == ""


@pytest.mark.parametrize(
    ("data", "content"),
    [
        (b"one\ntwo\nthree\n", "one\ntwo\n"),  # the tenth byte is in the third line
        (b"no line ends here", "no line en"),
        ("ééééééé".encode(), "ééééé"),
        ("aééééééé".encode(), "aéééé"),  # not half a character
    ],
)
def test_of_a_long_file_the_first_whole_lines_are_given(tmp_path: Path, data: bytes, content: str) -> None:
    (tmp_path / "long.txt").write_bytes(data)
    result = tools_of(tmp_path, max_read_bytes=10).run("read_file", path="long.txt")
    assert result.structured is not None
    assert (result.structured["content"], result.structured["truncated"]) == (content, True)
    assert result.structured["size"] == len(data)
    *shown, last = result.text.split("\n")
    assert "\n".join(shown) == content.removesuffix("\n")
    assert last == f"[cut here: the file has {len(data)} bytes, and at most 10 are given]"


def test_a_file_of_just_the_limit_is_whole(tmp_path: Path) -> None:
    fill(tmp_path, "ten-bytes!")
    result = tools_of(tmp_path, max_read_bytes=10).run("read_file", path="ten-bytes!")
    assert result.structured is not None
    assert not result.structured["truncated"]


@pytest.mark.parametrize("encoding", ["latin-1", "UTF-16", "utf_8", "cp1252", "utf-32-be"])
def test_a_file_is_read_in_the_encoding_that_is_named(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.txt").write_bytes("grün".encode(encoding))
    assert tools_of(tmp_path).run("read_file", path="a.txt", encoding=encoding).text == "grün"


def test_a_cut_falls_between_the_lines_of_wide_encodings_too(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\u0a0a\nb\u0a0a\n".encode("utf-16-le"))
    result = tools_of(tmp_path, max_read_bytes=7).run("read_file", path="a.txt", encoding="utf-16-le")
    assert result.structured is not None
    assert result.structured["content"] == "\u0a0a\n"


@pytest.mark.parametrize(
    "encoding", ["", "klingon", "zlib", "base64", "rot13", "idna", "punycode", "undefined", "os.path", "utf-8\0", "é"]
)
def test_what_is_no_text_encoding_is_said_so(tmp_path: Path, encoding: str) -> None:
    fill(tmp_path, "a.txt")
    result = tools_of(tmp_path).run("read_file", path="a.txt", encoding=encoding)
    assert result.is_error
    assert result.text.startswith(f"there is no text encoding {encoding!r}")


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (b"\x89PNG\r\n\x1a\n\x00", "utf-8"),
        (b"text\x00text", "utf-8"),
        (b"gr\xfcn", "utf-8"),
        (b"odd", "utf-16"),
        (b"\xff" * 8, "utf-32"),
        (b"cut off \xc3", "utf-8"),
        (rb"half a pair \ud800", "unicode_escape"),
    ],
)
def test_what_is_no_text_is_one_sentence_with_a_hint(tmp_path: Path, data: bytes, encoding: str) -> None:
    (tmp_path / "a.bin").write_bytes(data)
    result = tools_of(tmp_path).run("read_file", path="a.bin", encoding=encoding)
    assert result.is_error
    assert "'a.bin' is not" in result.text
    assert "binary" in result.text


def test_a_tool_for_the_wrong_kind_names_the_right_one(tmp_path: Path) -> None:
    fill(tmp_path, "folder/", "file")
    bench = tools_of(tmp_path)
    assert "list_directory" in bench.run("read_file", path="folder").text
    assert "read_file" in bench.run("list_directory", path="file").text
    assert bench.run("read_file", path="none").text == "there is no 'none'"
    assert bench.run("list_directory", path="none").text == "there is no 'none'"


# --- list_directory ---


def test_a_listing_has_names_types_and_sizes_in_order(tmp_path: Path) -> None:
    fill(tmp_path, "b.txt", "a/inner", "c/")
    (tmp_path / "link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "pipe")
    result = tools_of(tmp_path).run("list_directory")
    assert result.structured == {
        "path": ".",
        "entries": [
            {"name": "a", "type": "directory"},
            {"name": "b.txt", "type": "file", "size": 5},
            {"name": "c", "type": "directory"},
            {"name": "link", "type": "symlink"},
            {"name": "pipe", "type": "other"},
        ],
        "total": 5,
        "truncated": False,
    }
    assert result.text == "a/\nb.txt  5 bytes\nc/\nlink  (symlink)\npipe  (other)"


def names(bench: ToolBench, **arguments: Any) -> list[str]:  # noqa: ANN401  # whatever the tool takes
    result = bench.run("list_directory", **arguments)
    assert result.structured is not None
    return [entry["name"] for entry in result.structured["entries"]]


def test_a_recursive_listing_enters_folders_but_no_links_and_no_repository(tmp_path: Path) -> None:
    fill(tmp_path, "a/b/c", "a/z", "a-b", ".git/config", "sub/.git/objects/1")
    (tmp_path / "link").symlink_to("a")
    bench = tools_of(tmp_path)
    everything = [".git", "a", "a/b", "a/b/c", "a/z", "a-b", "link", "sub", "sub/.git"]
    assert names(bench, recursive=True) == everything
    assert names(bench, recursive=False) == [".git", "a", "a-b", "link", "sub"]
    assert names(bench, path="sub/.git", recursive=True) == ["objects", "objects/1"]


def test_a_long_listing_keeps_what_is_nearest_and_says_how_much_there_is(tmp_path: Path) -> None:
    fill(tmp_path, *(f"a/deep/{number}" for number in range(20)), "b", "c/d")
    result = tools_of(tmp_path, max_entries=5).run("list_directory", recursive=True)
    assert result.structured is not None
    assert [entry["name"] for entry in result.structured["entries"]] == ["a", "a/deep", "b", "c", "c/d"]
    assert (result.structured["total"], result.structured["truncated"]) == (25, True)
    assert result.text.endswith("\n[5 of 25 entries]")


def test_long_names_fill_a_listing_too(tmp_path: Path) -> None:
    fill(tmp_path, *(f"{number}{'x' * 200}" for number in range(10)))
    result = tools_of(tmp_path, max_read_bytes=1000).run("list_directory")
    assert len(result.text) < 1200
    assert result.structured is not None
    assert (result.structured["total"], result.structured["truncated"]) == (10, True)


def test_a_name_cannot_pass_for_another_line_nor_break_the_answer(tmp_path: Path) -> None:
    hostile = ["two\nlines", "bidi\u202ename", "bell\x07"]
    fill(tmp_path, *hostile)
    result = tools_of(tmp_path).run("list_directory")
    assert result.structured is not None
    assert sorted(entry["name"] for entry in result.structured["entries"]) == sorted(hostile)
    assert result.text.splitlines() == ["bell\\x07  5 bytes", "bidi\\u202ename  11 bytes", "two\\nlines  9 bytes"]


@pytest.mark.skipif(os.uname().sysname == "Darwin", reason="its file systems refuse such names")
def test_a_name_that_is_not_utf8_is_shown_with_its_bytes_spelt_out(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"gr\xfcn")).touch()
    bench = tools_of(tmp_path)
    listing, search = bench.run("list_directory"), bench.run("search_files", pattern="gr*")
    assert listing.text == "gr\\xfcn  0 bytes"
    assert search.text == "gr\\xfcn"
    json.dumps([listing.structured, search.structured], ensure_ascii=False).encode()


# --- search_files ---


def matches(bench: ToolBench, pattern: str, path: str = ".") -> list[str]:
    result = bench.run("search_files", path=path, pattern=pattern)
    assert result.structured is not None
    assert result.structured["count"] == len(result.structured["matches"])
    assert result.text == ("\n".join(result.structured["matches"]) or "[no matches]")
    return result.structured["matches"]


def test_files_are_found_by_patterns_over_their_paths(tmp_path: Path) -> None:
    fill(tmp_path, "a.py", "src/b.py", "src/pkg/c.py", "src/pkg/c.txt", ".git/hooks/d.py", "docs/src/e.py")
    (tmp_path / "link").symlink_to("src")
    bench = tools_of(tmp_path)
    assert matches(bench, "*.py") == ["a.py", "docs/src/e.py", "src/b.py", "src/pkg/c.py"]
    assert matches(bench, "src/*.py") == ["src/b.py"]
    assert matches(bench, "**/src/*.py") == ["docs/src/e.py", "src/b.py"]
    assert matches(bench, "pkg") == ["src/pkg"]
    assert matches(bench, "*.py", path="src") == ["b.py", "pkg/c.py"]
    assert matches(bench, ".git/**/*.py") == [".git/hooks/d.py"]
    assert matches(bench, "*.rs") == []


def test_too_many_matches_are_cut_and_said_so(tmp_path: Path) -> None:
    fill(tmp_path, *(f"{number:02}.txt" for number in range(20)))
    result = tools_of(tmp_path, max_entries=3).run("search_files", pattern="*")
    assert result.structured == {
        "path": ".",
        "matches": ["00.txt", "01.txt", "02.txt"],
        "count": 3,
        "truncated": True,
    }
    assert result.text.endswith("\n[3 matches, and there may be more: narrow path or pattern]")


@pytest.mark.parametrize("pattern", ["/etc/*", "../*", "a/../../*", "a//b", "./", "a/"])
def test_a_pattern_that_could_never_match_is_refused(tmp_path: Path, pattern: str) -> None:
    result = tools_of(tmp_path).run("search_files", pattern=pattern)
    assert result.is_error
    assert result.text.startswith("the pattern must be relative to path")


# --- bounds, cancellation, descriptors ---


class StopsAfter:
    """A `ToolContext` whose call is given up at the n-th check."""

    principal = "local"

    def __init__(self, checks: int) -> None:
        self.left = checks

    def check(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise CallAbandoned

    async def progress(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        raise AssertionError

    async def dispatch(self, message: object) -> object:
        raise AssertionError


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("read_file", {"path": "big"}),
        ("list_directory", {"recursive": True}),
        ("list_directory", {"path": "wide"}),
        ("search_files", {"pattern": "no such name"}),
    ],
)
def test_work_that_is_given_up_ends_at_its_next_step_and_leaves_nothing_open(
    tmp_path: Path, tool: str, arguments: dict[str, Any]
) -> None:
    fill(tmp_path, *(f"wide/{number}" for number in range(100)), *(f"{number}/a/b/c" for number in range(20)))
    (tmp_path / "big").write_bytes(b"x" * 4_000_000)
    run = ToolRegistry(file_tools(Roots([tmp_path]), FileLimits(max_read_bytes=4_000_000))).find(tool).run
    before = open_descriptors()
    for checks in (0, 1, 7, 30):
        context = StopsAfter(checks)
        with pytest.raises(CallAbandoned):
            run(arguments, context)
        assert context.left == -1
        assert open_descriptors() <= before


class WaitsInTheMiddle(StopsAfter):
    """Passes checks on to the real context, but holds the call up at one of them."""

    def __init__(self, context: ToolContext, reached: threading.Event, go_on: threading.Event) -> None:
        super().__init__(checks=30)
        self.context, self.reached, self.go_on = context, reached, go_on

    def check(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.reached.set()
            assert self.go_on.wait(PATIENCE)
        self.context.check()


def test_a_cancelled_listing_frees_its_thread_and_descriptors(tmp_path: Path) -> None:
    fill(tmp_path, *(f"{folder}/{number}" for folder in range(20) for number in range(20)))
    reached, go_on = threading.Event(), threading.Event()
    listing = ToolRegistry(file_tools(Roots([tmp_path]), FileLimits())).find("list_directory")

    def run(arguments: Mapping[str, Any], context: ToolContext) -> Any:  # noqa: ANN401  # as a ToolFunction
        return listing.run(arguments, WaitsInTheMiddle(context, reached, go_on))

    bench = ToolBench([replace(listing, run=run)], threads=1)
    before = open_descriptors()

    async def main() -> None:
        call = asyncio.create_task(bench.call("list_directory", recursive=True))
        assert await asyncio.to_thread(reached.wait, PATIENCE)
        call.cancel()
        await asyncio.wait([call])
        assert call.cancelled()

    asyncio.run(main())
    assert open_descriptors() > before
    go_on.set()
    bench.executor.shutdown()
    assert open_descriptors() <= before
    assert bench.executed == [("list_directory", "cancelled", None)]


@pytest.mark.parametrize(
    ("limits", "seen", "complete"),
    [
        (TreeLimits(entries=100, depth=9), ["a", "e", "a/b", "e/f", "a/b/c", "a/b/c/d"], True),
        (TreeLimits(entries=6, depth=9), ["a", "e", "a/b", "e/f", "a/b/c", "a/b/c/d"], True),
        (TreeLimits(entries=5, depth=9), ["a", "e", "a/b", "e/f", "a/b/c"], False),
        (TreeLimits(entries=1, depth=9), ["a"], False),
        (TreeLimits(entries=100, depth=2), ["a", "e", "a/b", "e/f"], False),
    ],
)
def test_a_tree_is_seen_as_far_as_its_limits(
    tmp_path: Path, limits: TreeLimits, seen: list[str], *, complete: bool
) -> None:
    fill(tmp_path, "a/b/c/d", "e/f")
    (tmp_path / "e" / "f").write_text("")
    descriptor = os.open(tmp_path, os.O_RDONLY)
    tree = Tree(descriptor, denied=frozenset(), skip=frozenset(), limits=limits, context=StopsAfter(10**9))
    found = ["/".join(names) for names, _ in tree.walk(recursive=True)]
    os.close(descriptor)
    # Which entries a cut spares within one folder is the file system's choice.
    assert (len(found), tree.complete) == (len(seen), complete)
    assert limits.entries < 6 or found == seen


def test_a_folder_that_became_the_servers_own_meanwhile_is_not_entered(tmp_path: Path) -> None:
    fill(tmp_path, "root/sub/harmless", "state/secret")
    denied = frozenset({identity((tmp_path / "state").stat())})
    descriptor = os.open(tmp_path / "root", os.O_RDONLY)
    tree = Tree(
        descriptor,
        denied=denied,
        skip=frozenset(),
        limits=TreeLimits(entries=100, depth=9),
        context=StopsAfter(10**9),
    )
    walk = tree.walk(recursive=True)
    assert next(walk)[0] == ("sub",)
    (tmp_path / "root" / "sub").rename(tmp_path / "elsewhere")
    (tmp_path / "state").rename(tmp_path / "root" / "sub")
    assert list(walk) == []
    os.close(descriptor)


def test_a_folder_that_went_away_meanwhile_is_no_failure(tmp_path: Path) -> None:
    fill(tmp_path, "a/b", "c/d")
    descriptor = os.open(tmp_path, os.O_RDONLY)
    limits = TreeLimits(entries=100, depth=9)
    tree = Tree(descriptor, denied=frozenset(), skip=frozenset(), limits=limits, context=StopsAfter(10**9))
    walk = tree.walk(recursive=True)
    next(walk)
    (tmp_path / "a").rename(tmp_path / "moved")
    assert ["/".join(names) for names, _ in walk] == ["c", "c/d"]
    assert not tree.complete
    os.close(descriptor)


# --- what every tool promises ---


def test_the_tools_promise_to_read_only_and_take_little_room_in_a_list(tmp_path: Path) -> None:
    roots = Roots([tmp_path])
    tools = [*echo_tools(), *file_tools(roots, FileLimits()), *system_tools(roots)]
    assert [tool.name for tool in tools] == ["echo", "read_file", "list_directory", "search_files", "system_info"]
    for tool in tools:
        assert tool.annotations.read_only
        assert tool.annotations.idempotent
        assert not tool.annotations.destructive
        assert not tool.annotations.open_world
        assert tool.input_schema["additionalProperties"] is False
        assert tool.mode is (ToolMode.INLINE if tool.name == "echo" else ToolMode.THREAD)
    listed = [(tool.name, tool.title, tool.description, tool.input_schema, tool.output_schema) for tool in tools]
    assert len(json.dumps(listed)) < 4500


def test_echo_gives_the_message_back() -> None:
    message = "héllo\n\N{SNOWMAN}"
    result = ToolBench(echo_tools()).run("echo", message=message)
    assert (result.text, result.structured) == (message, {"message": message})


def test_system_info_tells_of_machine_and_server_and_nothing_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "a-secret-key")
    result = ToolBench(system_tools(Roots([tmp_path]))).run("system_info")
    info = result.structured
    assert info is not None
    assert info["pid"] == os.getpid()
    assert 0 <= info["uptime"] < PATIENCE
    assert 0 < info["disk_available"] <= info["disk_total"]
    assert 0 < info.get("memory_available", 1) <= info.get("memory_total", 1)
    private = ("a-secret-key", os.uname().nodename, str(Path.home()), str(tmp_path), str(Path.cwd()))
    assert not [word for word in private if word in result.text]
    assert result.text.splitlines()[0] == f"platform: {info['platform']}"


def test_system_info_works_without_roots() -> None:
    info = ToolBench(system_tools(Roots([]))).run("system_info").structured
    assert info is not None
    assert "disk_total" not in info
