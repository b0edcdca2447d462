"""The programs that `execute_command` may run: found once, at start-up, and held to be the same ever after."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tfo_mcp.domain.errors import CommandRefused
from tfo_mcp.infrastructure.tools.roots import Roots, quoted

_logger = logging.getLogger(__name__)

_FOLDERS: Final = ("/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/sbin")
"""Where a bare name is looked for: never in the server's own PATH, which anybody may have set."""

LAUNCHERS: Final = frozenset({
    "ash", "at", "awk", "bash", "bun", "bundle", "busybox", "cargo", "chroot", "cmake", "crontab", "csh", "dash",
    "deno", "doas", "docker", "ed", "emacs", "entr", "env", "expect", "find", "fish", "flock", "gawk", "gdb",
    "gmake", "go", "gradle", "java", "julia", "just", "ksh", "less", "lua", "make", "man", "mawk", "mvn", "nice",
    "ninja", "node", "nohup", "npm", "npx", "parallel", "perl", "php", "pip", "pnpm", "podman", "poetry", "python",
    "rake", "rg", "rsync", "ruby", "screen", "script", "sed", "setsid", "sh", "socat", "sort", "ssh", "stdbuf",
    "strace", "su", "sudo", "systemd-run", "tar", "tclsh", "time", "timeout", "tmux", "tox", "unshare", "uv", "uvx",
    "vi", "vim", "watch", "xargs", "yarn", "zsh",
})  # fmt: skip
"""Programs whose arguments, or what lies in a folder, make them run others; without the version behind a name."""


@dataclass(frozen=True, slots=True)
class Program:
    """A program as it was found.

    Attributes:
        word: what it is called in `tools.execute_command.allow`, and so in commands.
        path: where it was found; what it is told that it is called.
        real: the file that this leads to.
    """

    word: str
    path: Path
    real: Path
    fingerprint: tuple[int, ...]

    @property
    def names(self) -> frozenset[str]:
        """Under which it may be known."""
        return frozenset({self.path.name, self.real.name})

    def check_unchanged(self) -> None:
        """Refuse to run another file than the one that was found.

        Raises:
            CommandRefused: it was replaced or changed, or is gone.
        """
        try:
            same = Path(os.path.realpath(self.path)) == self.real and _fingerprint(self.real) == self.fingerprint
        except OSError:
            same = False
        if not same:
            raise CommandRefused(f"{quoted(self.word)} was changed since tfo-mcp started; restart tfo-mcp to take it")


class Programs:
    """The allow-list.

    Args:
        allow: names and absolute paths, as the operator wrote them.
        roots: where no program may be, because tools can write there.
    """

    def __init__(self, allow: Iterable[str], roots: Roots) -> None:
        self._found: dict[str, Program | str] = {word: find_program(word, roots) for word in allow}
        """The program, or why there is none."""
        for word, found in self._found.items():
            if isinstance(found, str):
                _logger.warning("execute_command: %r cannot be run: %s", word, found)

    def find(self, word: str) -> Program:
        """The program that `word` is exactly the name of.

        Raises:
            CommandRefused: it is not allowed, was not found at start-up, or was changed since.
        """
        found = self._found.get(word)
        if found is None:
            raise CommandRefused(f"{quoted(word)} is not a program that may be run; these are: {self}")
        if isinstance(found, str):
            raise CommandRefused(f"{quoted(word)} cannot be run: {found}")
        found.check_unchanged()
        return found

    @property
    def launchers(self) -> list[str]:
        """Those that run other programs, so that the list does not bound what is run."""
        programs = (found for found in self._found.values() if isinstance(found, Program))
        return sorted(
            program.word
            for program in programs
            if not LAUNCHERS.isdisjoint(name.rstrip("0123456789.") for name in program.names)
        )

    def __str__(self) -> str:
        return ", ".join(self._found)


def find_program(word: str, roots: Roots) -> Program | str:
    """The program called `word`, or why there is none."""
    candidates = [Path(word)] if "/" in word else [Path(folder, word) for folder in _FOLDERS]
    why = "there is no such program" if "/" in word else f"it is in none of {', '.join(_FOLDERS)}"
    for path in candidates:
        real = Path(os.path.realpath(path))
        try:
            status = real.stat()
        except OSError:
            continue
        if not stat.S_ISREG(status.st_mode) or not os.access(real, os.X_OK):
            why = f"{path} is not an executable file"
        elif roots.holds(path.parent) or roots.holds(real):
            why = f"{path} is inside a folder that is open to file tools, where anybody may change it"
        else:
            return Program(word, path, real, _fingerprint(real))
    return why


def safe_path(roots: Roots) -> str:
    """PATH for a program."""
    return ":".join(folder for folder in _FOLDERS if Path(folder).is_dir() and not roots.holds(Path(folder)))


def _fingerprint(path: Path) -> tuple[int, ...]:
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
