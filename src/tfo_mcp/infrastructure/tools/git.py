"""What `git` may be asked by `execute_command`: subcommands that run no other program, and no option that does.

git runs programs for many reasons: aliases, hooks, pagers, editors, filters, remote helpers. The first argument
must be one of the subcommands below, which no alias can shadow; options that name programs or write outside the
work tree are refused, abbreviated ones included; and the environment switches off what configuration may name.
`docs/decisions/0003-commands-are-programs-not-shell-lines.md` says what is left.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from tfo_mcp.domain.errors import CommandRefused
from tfo_mcp.infrastructure.tools.roots import quoted

_SUBCOMMANDS: Final = frozenset({
    "add", "annotate", "apply", "blame", "branch", "cat-file", "check-ignore", "checkout", "cherry", "clean",
    "commit", "count-objects", "describe", "diff", "diff-files", "diff-index", "diff-tree", "for-each-ref", "grep",
    "log", "ls-files", "ls-tree", "merge-base", "name-rev", "reflog", "reset", "restore", "rev-list", "rev-parse",
    "rm", "shortlog", "show", "show-branch", "show-ref", "stash", "status", "switch", "tag", "version",
})  # fmt: skip
"""Not `mv`, which renames a file to `.git/config` before it finds that this is no place for one; not `range-diff`,
whose own `git log` cannot be told to run no textconv; nor what git deprecates, such as `whatchanged`: from 2.52 on an
alias may shadow it."""

_OPTIONS: Final = (
    "--build-fake-ancestor",
    "--config-env",
    "--exec",
    "--exec-path",
    "--ext-diff",
    "--filters",
    "--git-dir",
    "--help",
    "--no-index",
    "--open-files-in-pager",
    "--output",
    "--output-directory",
    "--paginate",
    "--receive-pack",
    "--recurse-submodules",
    "--show-signature",
    "--submodule",
    "--textconv",
    "--trailer",
    "--unsafe-paths",
    "--upload-pack",
    "--work-tree",
)
"""They run programs, or read and write what is not in the work tree. git takes every beginning of them that is
unambiguous."""

_HARMLESS: Final[Mapping[str, frozenset[str]]] = {
    "diff": frozenset({"--text"}),
    "diff-files": frozenset({"--text"}),
    "diff-index": frozenset({"--text"}),
    "diff-tree": frozenset({"--text"}),
    "grep": frozenset({"--text"}),
    "log": frozenset({"--text"}),
    "rev-list": frozenset({"--filter"}),
    "rev-parse": frozenset({"--git-dir"}),
    "show": frozenset({"--text"}),
}
"""Options that are spelt like the beginning of one above, and are none."""

_WITH_PATCHES: Final = frozenset({"diff", "diff-files", "diff-index", "diff-tree", "log", "show"})
"""They show patches, for which configuration may name a program; each can be told not to."""
_NO_PROGRAMS: Final = ("--no-ext-diff", "--no-textconv")

_VERBOSE: Final = re.compile(r"-[^-CFSctmu]*v|--v(?!erify)")
"""Has `commit` and `status` show patches, which they cannot be told to show without those programs."""

_REFLOG: Final = frozenset({"delete", "drop", "exists", "expire", "list", "write"})
"""What `reflog` does beside being another `log`."""

_SETTINGS: Final = {
    "safe.bareRepository": "explicit",  # or a folder made of ordinary files could bring its own configuration
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.pager": "cat",
    "core.editor": ":",
    "sequence.editor": ":",
    "core.askPass": "false",
    "core.sshCommand": "false",
    "core.gitProxy": "false",
    "core.alternateRefsCommand": "false",
    "credential.helper": "",
    "diff.external": "",
    "diff.ignoreSubmodules": "dirty",
    "diff.submodule": "short",
    "interactive.diffFilter": "cat",
    "commit.verbose": "false",
    "gc.auto": "0",
    "gc.recentObjectsHook": "",
    "maintenance.auto": "false",
    "commit.gpgSign": "false",
    "tag.gpgSign": "false",
    "log.showSignature": "false",
    "gpg.program": "false",
    "gpg.openpgp.program": "false",
    "gpg.x509.program": "false",
    "gpg.ssh.program": "false",
    "gpg.ssh.defaultKeyCommand": "false",
    "protocol.allow": "never",
    "submodule.recurse": "false",
}
"""Stronger than every file, so also than a repository's own configuration."""

GIT_ENVIRONMENT: Final[Mapping[str, str]] = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_SYSTEM": "/dev/null",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_PAGER": "cat",
    "GIT_EDITOR": ":",
    "GIT_SEQUENCE_EDITOR": ":",
    "GIT_ASKPASS": "false",
    "GIT_SSH_COMMAND": "false",
    "GIT_ALLOW_PROTOCOL": "none",
    "GIT_CONFIG_COUNT": str(len(_SETTINGS)),
    **{f"GIT_CONFIG_KEY_{number}": name for number, name in enumerate(_SETTINGS)},
    **{f"GIT_CONFIG_VALUE_{number}": value for number, value in enumerate(_SETTINGS.values())},
}
"""What git gets beside the environment of every program."""


def git_arguments(arguments: Sequence[str]) -> list[str]:
    """The arguments to run git with, where it may be run with `arguments`.

    Raises:
        CommandRefused: it would run other programs, or could.
    """
    subcommand, *rest = arguments or [""]
    if subcommand not in _SUBCOMMANDS:
        raise CommandRefused(
            f"git may be run with these subcommands only, as its first argument: {', '.join(sorted(_SUBCOMMANDS))}"
        )
    for argument in rest:  # those behind "--" too: an option before it may have taken it as its value
        if _is_refused(subcommand, argument):
            raise CommandRefused(
                f"git may not be run with {quoted(argument)}: the option runs programs, or leaves the work tree"
            )
    if subcommand in _WITH_PATCHES:
        return [subcommand, *_NO_PROGRAMS, *rest]
    if subcommand == "reflog" and _REFLOG.isdisjoint(rest[:1]):
        return [subcommand, "show", *_NO_PROGRAMS, *rest[rest[:1] == ["show"] :]]
    if subcommand in {"annotate", "blame", "grep"}:
        return [subcommand, "--no-textconv", *rest]
    return [subcommand, *rest]


def _is_refused(subcommand: str, argument: str) -> bool:
    name = argument.partition("=")[0]
    if name in _HARMLESS.get(subcommand, ()):
        return False
    if subcommand in {"commit", "status"} and _VERBOSE.match(argument):
        return True
    if name.startswith("--"):
        return len(name) > len("--") and any(option.startswith(name) for option in _OPTIONS)
    return subcommand == "grep" and argument.startswith("-") and "O" in argument
