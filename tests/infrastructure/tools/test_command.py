from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from support.bubblewrap import require
from support.tool_calls import ToolBench
from tfo_mcp.domain.tool import ToolResult
from tfo_mcp.infrastructure.tools import programs as programs_module
from tfo_mcp.infrastructure.tools.command import CommandLimits, command_tools
from tfo_mcp.infrastructure.tools.git import git_arguments
from tfo_mcp.infrastructure.tools.processes import Processes
from tfo_mcp.infrastructure.tools.programs import Program, Programs, find_program
from tfo_mcp.infrastructure.tools.roots import Roots
from tfo_mcp.infrastructure.tools.sandbox import Bubblewrap, NoSandbox

KEY = "sk-ant-api03-not-a-real-key"


class World:
    """`work` is the root; programs of the test's own are in `bin`."""

    def __init__(self, folder: Path, *allow: str, sandbox: str = "none", most: int = 8) -> None:
        folder = folder.resolve()
        self.work, self.bin, self.canary = folder / "work", folder / "bin", folder / "work" / "canary"
        for made in (self.work, self.bin):
            made.mkdir(exist_ok=True)
        self.roots = Roots([self.work])
        self._allow, self._sandbox, self._most = allow, sandbox, most

    def script(self, name: str, text: str, folder: Path | None = None) -> Path:
        path = (folder or self.bin) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    def bench(self, *allow: str | Path) -> ToolBench:
        require(self._sandbox)
        processes = Processes(self._most)
        return ToolBench(
            command_tools(
                Programs([*self._allow, *map(str, allow)], self.roots),
                self.roots,
                Bubblewrap(self.roots, processes) if self._sandbox == "bubblewrap" else NoSandbox(),
                processes,
                CommandLimits(timeout=10, max_output_bytes=10_000),
                secrets=[KEY, "abc"],
            )
        )

    def run(self, command: str | Sequence[str], /, **arguments: object) -> ToolResult:
        return self.bench().run("execute_command", command=command, **arguments)


def said(result: ToolResult) -> Mapping[str, Any]:
    assert result.structured is not None, result.text
    return result.structured


# --- words -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("printf '%s|' a 'b c' \"d e\" f\\ g", "a|b c|d e|f g|"),
        ("printf '%s|' $HOME `id` $(id) * > x ; id | cat && id", "$HOME|`id`|$(id)|*|>|x|;|id|\\||cat|&&|id|"),
        (["printf", "%s|", "a b", "", "$(id)"], "a b||$(id)|"),
    ],
)
def test_a_command_is_split_as_a_shell_would_and_read_by_none(
    tmp_path: Path, command: str | Sequence[str], words: str
) -> None:
    result = World(tmp_path, "printf").run(command)

    assert said(result)["stdout"].replace("|||", "|\\||") == words
    assert os.listdir(tmp_path / "work") == []  # noqa: PTH208  # names are enough


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("printf 'a", "the command cannot be split into words: a quote or a backslash is left open"),
        ("printf \\", "the command cannot be split into words: a quote or a backslash is left open"),
        ("  ", "the command is empty"),
        ("# printf", "'#' is not a program that may be run; these are: printf"),
        (["printf", "a\0b"], "a word of the command holds a NUL character, which no argument can"),
        (["printf", "\ud800"], "a word of the command holds half of a surrogate pair, which no argument can"),
        ("printf " + "x " * 1001, "the command has more than 1000 words"),
    ],
)
def test_what_is_no_command_is_refused(tmp_path: Path, command: str | Sequence[str], sentence: str) -> None:
    result = World(tmp_path, "printf").run(command)

    assert (result.is_error, result.text) == (True, sentence)


def test_a_command_that_is_longer_than_the_system_takes_is_told_of(tmp_path: Path) -> None:
    result = World(tmp_path, "printf").run(["printf", *["x" * 60_000] * 100])

    assert (result.is_error, result.text) == (True, "the program cannot be started: Argument list too long")


# --- which program -----------------------------------------------------------------------------------------


@pytest.mark.behaviour("tools.acting.execute-command")
@pytest.mark.parametrize(
    "word",
    ["env", "sh", "./printf", "/usr/bin/printf", "/bin/printf", "printf ", "PRINTF", "", "..", "printf\n", "a=b"],
)
def test_only_what_the_operator_wrote_is_run_letter_by_letter(tmp_path: Path, word: str) -> None:
    bench = World(tmp_path, "printf").bench()

    result = bench.run("execute_command", command=[word, "x"])

    assert result.is_error
    assert result.text.endswith("is not a program that may be run; these are: printf")
    assert bench.executed == [("execute_command", "failed", "command_refused")]


def test_a_name_is_looked_up_in_the_systems_own_folders_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, "printf", "only-here")
    for folder in (world.work, world.bin):
        world.script("printf", "echo another", folder)
        world.script("only-here", "echo another", folder)
    monkeypatch.setenv("PATH", f"{world.bin}:{world.work}:.:{os.environ['PATH']}")

    assert said(world.run("printf x"))["stdout"] == "x"
    assert world.run("only-here").text.startswith("'only-here' cannot be run: it is in none of /usr/local/bin, ")


def test_an_absolute_path_is_run_where_the_operator_wrote_it(tmp_path: Path) -> None:
    world = World(tmp_path)
    script = world.script("tool", "echo $0 $1")

    assert said(world.bench(script).run("execute_command", command=f"{script} x"))["stdout"] == f"{script} x\n"


def test_a_program_inside_a_root_is_refused_however_it_is_reached(tmp_path: Path) -> None:
    world = World(tmp_path)
    inside = world.script("tool", "echo run", world.work)
    link = world.bin / "link"
    link.symlink_to(inside)
    (world.bin / "folder").symlink_to(world.work)

    for path in (inside, link, world.bin / "folder" / "tool"):
        result = world.bench(path).run("execute_command", command=str(path))
        assert "is inside a folder that is open to file tools" in result.text


def test_a_program_that_is_none_is_refused(tmp_path: Path) -> None:
    world = World(tmp_path)
    plain = world.bin / "plain"
    plain.write_text("no program")

    for path, why in ((plain, "is not an executable file"), (world.bin, "is not an exec"), ("/nowhere", "no such")):
        assert why in world.bench(path).run("execute_command", command=str(path)).text


def test_a_program_that_changed_since_the_start_is_refused(tmp_path: Path) -> None:
    world = World(tmp_path)
    script, link = world.script("tool", "echo first"), world.bin / "link"
    link.symlink_to(script)
    bench = world.bench(script, link)
    assert said(bench.run("execute_command", command=str(link)))["stdout"] == "first\n"

    link.unlink()
    link.symlink_to(world.script("other", "echo second"))
    world.script("tool", "echo second, and longer")

    for path in (script, link):
        result = bench.run("execute_command", command=str(path))
        assert result.text == f"{str(path)!r} was changed since tfo-mcp started; restart tfo-mcp to take it"


def test_a_program_with_two_names_is_told_the_one_that_was_meant(tmp_path: Path) -> None:
    world = World(tmp_path)
    (world.bin / "two").symlink_to(world.script("one", 'echo "${0##*/}"'))

    assert said(world.bench(world.bin / "two").run("execute_command", command=str(world.bin / "two")))["stdout"] == (
        "two\n"
    )


def test_what_can_run_anything_is_named_when_nothing_holds_it_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        World(tmp_path, "ls", "sh", "env", "missing-program").bench()

    assert [record.getMessage().partition(": it is in none of")[0] for record in caplog.records] == [
        "execute_command: 'missing-program' cannot be run",
        "execute_command runs programs without a sandbox, with all rights of this server",
        "execute_command: env, sh can run any other program, and nothing holds them back without a sandbox",
    ]


# --- what it is given --------------------------------------------------------------------------------------


@pytest.mark.behaviour("tools.acting.secrets")
def test_a_program_gets_an_environment_of_names_and_nothing_that_loads_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv("BASH_ENV", "/tmp/x")  # noqa: S108  # is never read
    monkeypatch.setenv("GIT_SSH_COMMAND", "x")
    monkeypatch.setenv("PYTHONPATH", "x")
    monkeypatch.setenv("LC_TIME", "de_DE.UTF-8")
    monkeypatch.setenv("LC_ALL", "../../tmp/locale")
    monkeypatch.setenv("LANG", "/var/locale")
    monkeypatch.setenv("TZ", ":/etc/passwd")

    result = World(tmp_path, "env").run("env")

    variables = dict(line.split("=", 1) for line in said(result)["stdout"].splitlines())
    assert len(variables.pop("TFO_MCP_COMMAND")) == 32
    assert variables == {
        "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin",
        "HOME": "/nonexistent",
        "LANG": "C.UTF-8",
        "LC_TIME": "de_DE.UTF-8",
        "TERM": "dumb",
        "NO_COLOR": "1",
        "PAGER": "cat",
    }


@pytest.mark.parametrize("sandbox", ["bubblewrap", "none"])
def test_a_program_has_an_empty_stdin_and_no_descriptor_of_the_servers(tmp_path: Path, sandbox: str) -> None:
    world = World(tmp_path, "cat", "ls", sandbox=sandbox)
    held = os.open("/etc/passwd", os.O_RDONLY)
    os.set_inheritable(held, True)  # noqa: FBT003  # positional only
    try:
        assert said(world.run("cat"))["stdout"] == ""
        listed = said(world.run("ls -l /proc/self/fd"))["stdout"]
    finally:
        os.close(held)
    assert [line.split(" -> ")[1] for line in listed.splitlines() if " 0 -> " in line] == ["/dev/null"]
    assert "passwd" not in listed


@pytest.mark.parametrize("sandbox", ["bubblewrap", "none"])
def test_a_program_runs_in_the_folder_that_is_asked_for(tmp_path: Path, sandbox: str) -> None:
    world = World(tmp_path, "pwd", sandbox=sandbox)
    (world.work / "sub").mkdir()
    (world.work / "link").symlink_to("sub")

    assert said(world.run("pwd"))["stdout"] == f"{world.work}\n"
    assert said(world.run("pwd", working_dir="sub"))["stdout"] == f"{world.work / 'sub'}\n"
    assert said(world.run("pwd", working_dir="link"))["stdout"] == f"{world.work / 'sub'}\n"


@pytest.mark.parametrize("working_dir", ["..", "/", "/proc/self/cwd", "out", "file", "missing"])
def test_a_program_runs_in_no_folder_outside_the_roots(tmp_path: Path, working_dir: str) -> None:
    world = World(tmp_path, "pwd")
    (world.work / "out").symlink_to("/")
    (world.work / "file").write_text("")

    assert world.run("pwd", working_dir=working_dir).is_error


# --- what comes back ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("sandbox", ["bubblewrap", "none"])
@pytest.mark.parametrize(("ending", "code"), [("exit 3", 3), ("kill -9 $$", 137), ("kill -TERM $$", 143)])
def test_an_exit_code_is_a_result(tmp_path: Path, sandbox: str, ending: str, code: int) -> None:
    world = World(tmp_path, sandbox=sandbox)
    script = world.script("ends", f"echo out; echo err >&2; {ending}")

    result = world.bench(script).run("execute_command", command=str(script))

    assert not result.is_error
    assert {**said(result), "duration": 0} == {
        "exit_code": code,
        "stdout": "out\n",
        "stderr": "err\n",
        "truncated": False,
        "timed_out": False,
        "duration": 0,
    }
    assert result.text == f"out\n[stderr]\nerr\n[exit code {code}]"


def test_what_a_program_had_said_when_its_time_was_over_is_given(tmp_path: Path) -> None:
    world = World(tmp_path)
    script = world.script("endless", "echo begun; sleep 1000")
    bench = world.bench(script)

    result = bench.run("execute_command", command=str(script), timeout=0.5)

    assert result.is_error
    assert {**said(result), "duration": 0} == {
        "exit_code": None,
        "stdout": "begun\n",
        "stderr": "",
        "truncated": False,
        "timed_out": True,
        "duration": 0,
    }
    assert result.text == f"begun\n[{str(script)!r} did not finish within 0.5 s and was stopped]"
    assert bench.executed == [("execute_command", "timed_out", "timeout")]


def test_a_program_that_is_told_to_end_may_clean_up(tmp_path: Path) -> None:
    world = World(tmp_path)
    script = world.script("tidy", "trap 'echo tidied; exit 0' TERM; echo begun; sleep 1000 & wait")

    assert said(world.bench(script).run("execute_command", command=str(script), timeout=0.5))["stdout"] == (
        "begun\ntidied\n"
    )


def test_a_program_that_does_not_want_to_end_is_killed(tmp_path: Path) -> None:
    world = World(tmp_path)
    script = world.script("stubborn", "trap '' TERM; while :; do sleep 0.1; done")

    result = world.bench(script).run("execute_command", command=str(script), timeout=0.2)

    assert 0.5 < said(result)["duration"] < 5


@pytest.mark.behaviour("tools.acting.bounded")
@pytest.mark.parametrize("size", [9_999, 10_000, 10_001, 500_000])
def test_of_long_output_beginning_and_end_are_given(tmp_path: Path, size: int) -> None:
    world = World(tmp_path)
    text = "".join(str(n % 10) for n in range(size))
    (world.work / "long").write_text(text)

    given = said(World(tmp_path, "cat").run("cat long"))

    if size <= 10_000:
        assert (given["stdout"], given["truncated"]) == (text, False)
    else:
        cut = f"\n[{size - 10_000} bytes are cut out here]\n"
        assert (given["stdout"], given["truncated"]) == (text[:5000] + cut + text[-5000:], True)


def test_bytes_that_are_no_text_are_marked(tmp_path: Path) -> None:
    (World(tmp_path).work / "garbage").write_bytes(bytes(range(256)) + b"\xe2\x82")

    given = said(World(tmp_path, "cat").run("cat garbage"))["stdout"]

    assert given.startswith("\0\1\2")
    assert given.endswith("\ufffd")


@pytest.mark.behaviour("tools.acting.secrets")
def test_a_secret_of_the_servers_is_never_shown(tmp_path: Path) -> None:
    result = World(tmp_path, "printf").run(["printf", f"<{KEY}> abc"])

    assert said(result)["stdout"] == "<***> abc", "what is too short to be told from a word stays"
    assert KEY not in result.text


def test_more_commands_at_once_than_allowed_are_refused(tmp_path: Path) -> None:
    result = World(tmp_path, "pwd", most=0).run("pwd")

    assert result.text == "0 commands are running, which is the most; try again when one has ended"


# --- the sandbox -------------------------------------------------------------------------------------------


def test_in_the_sandbox_only_the_roots_can_be_written(tmp_path: Path) -> None:
    world = World(tmp_path, sandbox="bubblewrap")
    script = world.script(
        "writes",
        f"for f in {world.work}/in {world.bin}/out /etc/out /tmp/own /run/own; do echo x > $f; done; ls /tmp",
    )

    given = said(world.bench(script).run("execute_command", command=str(script)))

    assert (world.work / "in").read_text() == "x\n"
    assert not (world.bin / "out").exists()
    assert not Path("/etc/out").exists()
    assert not Path("/tmp/own").exists()  # noqa: S108  # its own /tmp is another one
    assert "own" in given["stdout"].split()
    assert given["stderr"].count("Read-only file system") == 1


def test_in_the_sandbox_the_servers_own_files_are_hidden(tmp_path: Path) -> None:
    world = World(tmp_path, "cat", "cp", "ls", sandbox="bubblewrap")
    (world.work / "state").mkdir()
    (world.work / "state" / "tfo-mcp.db").write_text("private")
    (world.work / "config.yaml").write_text("private")
    to_come = world.work / "etc" / "tfo-mcp"
    denied = [world.work / "state", world.work / "config.yaml", tmp_path / "gone", to_come]
    world.roots = Roots([world.work], denied=denied)

    assert said(world.run("ls state"))["stdout"] == ""
    assert said(world.run("cat config.yaml"))["stdout"] == ""
    for path in (world.work / "state" / "new", world.work / "config.yaml", to_come / "config.yaml"):
        said(world.run(f"cp /etc/passwd {path}"))
    assert (world.work / "config.yaml").read_text() == "private"
    assert list((world.work / "state").iterdir()) == [world.work / "state" / "tfo-mcp.db"]
    assert list(to_come.iterdir()) == []


def test_no_command_runs_that_could_lead_the_next_start_to_other_files(tmp_path: Path) -> None:
    world = World(tmp_path, "ls", sandbox="bubblewrap")
    (tmp_path / "config.yaml").write_text("")
    (world.work / "config.yaml").symlink_to(tmp_path / "config.yaml")
    world.roots = Roots([world.work], denied=[world.work / "config.yaml"])

    refused = world.run("ls")

    assert refused.is_error
    assert refused.text.startswith(f"commands are off, because the link {world.work.resolve() / 'config.yaml'}, in a")


def test_in_the_sandbox_there_is_no_network_and_no_other_process(tmp_path: Path) -> None:
    world = World(tmp_path, "cat", "ls", sandbox="bubblewrap")

    interfaces = said(world.run("cat /proc/net/dev"))["stdout"].splitlines()[2:]
    processes = [name for name in said(world.run("ls /proc"))["stdout"].split() if name.isdecimal()]

    assert [line.split(":")[0].strip() for line in interfaces] == ["lo"]
    assert len(processes) <= 3


def test_without_bubblewrap_commands_are_off_and_say_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, "pwd")
    monkeypatch.setattr(programs_module, "_FOLDERS", (str(world.bin),))
    (world.bin / "true").symlink_to("/bin/true")
    (world.bin / "pwd").symlink_to("/bin/pwd")

    def run() -> ToolResult:
        processes = Processes(8)
        sandbox = Bubblewrap(world.roots, processes)
        limits = CommandLimits(timeout=10, max_output_bytes=1000)
        tools = command_tools(Programs(["pwd"], world.roots), world.roots, sandbox, processes, limits, secrets=())
        return ToolBench(tools).run("execute_command", command="pwd")

    missing = run()
    assert missing.is_error
    assert missing.text.startswith("commands are off, because there is no bubblewrap (it is in none of ")
    assert "set tools.execute_command.sandbox to none" in missing.text

    world.script("bwrap", "echo no namespaces for you >&2; exit 1")
    broken = run()
    assert broken.text.startswith("commands are off, because bubblewrap does not work here; ")
    assert "no namespaces for you" not in broken.text


# --- git ---------------------------------------------------------------------------------------------------


def git(folder: Path, *arguments: str) -> None:
    identity = {
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@b",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@b",
    }
    alone = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", **identity}
    subprocess.run(["/usr/bin/git", *arguments], cwd=folder, env=alone, check=True, capture_output=True)


REFUSED_BY_GIT = [
    "git",
    "git -c alias.x=!./trap x",
    "git -c core.pager=./trap log",
    "git --config-env=alias.x=HOME x",
    "git --exec-path=. status",
    "git -p log",
    "git --paginate log",
    "git -C .. status",
    "git --git-dir=evil status",
    "git --bare status",
    "git trapped",
    "git config alias.y !./trap",
    "git config --global alias.y !./trap",
    "git init --template=evil",
    "git clone --upload-pack=./trap . x",
    "git clone . x",
    "git fetch --upload-pack ./trap .",
    "git fetch ext::./trap",
    "git pull",
    "git push --receive-pack=./trap .",
    "git ls-remote --upload-pack=./trap .",
    "git ls-remote ext::./trap",
    "git archive --remote=. --exec=./trap HEAD",
    "git rebase --exec ./trap HEAD",
    "git rebase -x ./trap HEAD",
    "git bisect run ./trap",
    "git submodule foreach ./trap",
    "git difftool -x ./trap",
    "git mergetool",
    "git filter-branch --tree-filter ./trap",
    "git merge -s trap HEAD",
    "git worktree add x",
    "git daemon",
    "git help -w log",
    "git grep -O./trap x",
    "git grep -nO./trap x",
    "git grep --open-files-in-pager=./trap x",
    "git grep --open=./trap x",
    "git diff --ext-diff",
    "git diff --ext",
    "git log -p --ext-diff",
    "git log --author -- --ext-diff -p",
    "git show --textconv",
    "git cat-file --textconv HEAD:file",
    "git cat-file --filters HEAD:file",
    "git log --show-signature",
    "git log --output=/tmp/x",
    "git diff --outp /tmp/x",
    "git commit --trailer=x:y -m x",
    "git diff --no-index /etc/passwd /etc/hosts",
    "git apply --unsafe-paths x",
    "git checkout --recurse-submodules HEAD",
    "git status --help",
    "git status -v",
    "git status -sv",
    "git status --v",
    "git commit --verb",
    "git commit -av",
    "git range-diff HEAD~1..HEAD HEAD~1..HEAD",
    "git mv -f trap .git/config",
    "git whatchanged",
    "git diff --submodule=diff",
    "git apply --build-fake-ancestor=/tmp/x patch",
    "git apply --build=/tmp/x patch",
]


@pytest.mark.parametrize("command", REFUSED_BY_GIT)
def test_git_is_not_run_where_it_would_run_something_else(tmp_path: Path, command: str) -> None:
    world = World(tmp_path, "git")
    world.script("trap", f"touch {world.canary}", world.work)
    git(world.work, "init", "-q")
    git(world.work, "config", "alias.trapped", "!./trap")
    bench = world.bench()

    result = bench.run("execute_command", command=command)

    assert result.text.startswith("git may "), result.text
    assert bench.executed == [("execute_command", "failed", "command_refused")]
    assert not world.canary.exists()


def trapped_settings(trap: Path) -> Iterator[str]:
    """Settings of a repository by which git would run `trap`."""
    for name in (
        "core.fsmonitor", "core.pager", "core.editor", "sequence.editor", "diff.external", "gpg.program",
        "core.askPass", "core.sshCommand", "core.alternateRefsCommand", "pager.log", "pager.status",
        "interactive.diffFilter", "diff.trapped.textconv", "diff.trapped.command",
    ):  # fmt: skip
        yield f"{name}={trap}"
    for name in ("status", "log", "diff", "commit", "add"):
        yield f"alias.{name}=!{trap}"
    yield from ("color.ui=always", "commit.verbose=true", "diff.submodule=diff")
    yield from ("commit.gpgSign=true", "tag.gpgSign=true", "log.showSignature=true", f"core.hooksPath={trap.parent}")


@pytest.mark.parametrize(
    "command",
    [
        "git status",
        "git log",
        "git log -p",
        "git log --format=%G?",
        "git diff",
        "git diff --text",
        "git diff HEAD~1 HEAD",
        "git show HEAD",
        "git blame file",
        "git grep -n content",
        "git add .",
        "git commit -m x",
        "git commit --allow-empty",
        "git commit --amend",
        "git branch other",
        "git branch --edit-description",
        "git checkout -b third",
        "git switch -c fourth",
        "git tag -s v1 -m x",
        "git tag -v v0",
        "git stash",
        "git stash show -p",
        "git reset --hard HEAD",
        "git restore file",
        "git add -p",
        "git commit -p",
        "git reset -p HEAD~1",
        "git reflog -p",
        "git reflog show -p",
        "git reflog HEAD -p",
        "git rev-list --filter=blob:none HEAD",
        "git rev-parse --git-dir",
        "git version",
    ],
)
def test_nothing_that_a_repository_configures_is_run(tmp_path: Path, command: str) -> None:
    world = World(tmp_path, "git")
    git(world.work, "init", "-q")
    for content in ("first", "second content"):
        (world.work / "file").write_text(content)
        git(world.work, "add", "file")
        git(world.work, "commit", "-q", "-m", content)
    (world.work / "file").write_text("third")
    git(world.work, "tag", "-m", "x", "v0")
    git(world.work, "stash", "-q")
    git(world.work, "stash", "apply", "-q")
    trap = world.script("trap", f"touch {world.canary}; cat >&2; exit 0", tmp_path / "traps")
    for hook in ("pre-commit", "post-checkout", "commit-msg", "post-commit", "reference-transaction"):
        (trap.parent / hook).symlink_to(trap)
    git(world.work, "config", "user.name", "a")
    git(world.work, "config", "user.email", "a@b")
    for setting in trapped_settings(trap):
        name, value = setting.split("=", 1)
        git(world.work, "config", name, value)

    (world.work / ".git" / "info" / "attributes").write_text("file diff=trapped\n")

    result = world.run(command)

    assert said(result)["timed_out"] is False
    assert not world.canary.exists(), result.text


def test_a_repository_made_of_ordinary_files_brings_no_configuration_with_it(tmp_path: Path) -> None:
    world = World(tmp_path, "git")
    git(world.work, "init", "-q", "--bare", "ordinary")

    result = world.run("git rev-parse --git-dir", working_dir="ordinary")

    assert said(result)["exit_code"] == 128
    assert "safe.bareRepository is 'explicit'" in said(result)["stderr"]


def test_git_does_not_leave_the_roots_in_search_of_a_repository(tmp_path: Path) -> None:
    world = World(tmp_path, "git")
    git(tmp_path, "init", "-q")
    (world.work / "sub").mkdir()

    for folder in (".", "sub"):
        assert said(world.run("git status", working_dir=folder))["exit_code"] == 128


def test_gits_own_work_gets_done(tmp_path: Path) -> None:
    world = World(tmp_path, "git")
    git(world.work, "init", "-q")
    git(world.work, "config", "user.name", "a")
    git(world.work, "config", "user.email", "a@b")
    (world.work / "file").write_text("content\n")

    for command in ("git add -A", "git commit -m 'first one'"):
        assert said(world.run(command))["exit_code"] == 0, command
    assert "first one" in said(world.run("git log --oneline -1"))["stdout"]
    (world.work / "file").write_text("changed\n")
    assert "+changed" in said(world.run("git diff --text -- file"))["stdout"]


def test_the_options_that_are_added_come_before_the_callers_own() -> None:
    assert git_arguments(["log", "-p", "--", "x"]) == ["log", "--no-ext-diff", "--no-textconv", "-p", "--", "x"]


def test_git_is_known_by_what_it_is_and_by_what_it_is_called(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    link = tmp_path / "bin" / "version-control"
    link.symlink_to("/usr/bin/git")

    found = find_program(str(link), Roots([]))

    assert isinstance(found, Program)
    assert "git" in found.names
