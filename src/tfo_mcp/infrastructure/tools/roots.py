"""The folders that file tools may touch, and the one way to reach anything in them.

A path is walked component by component, each opened relative to the descriptor of the one before and never
through a symbolic link; links are read and walked by hand, so a component that is swapped meanwhile leads to an
error, not outside. `..` goes back to a descriptor that is held already and never above the root.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NoReturn

import tfo_mcp
from tfo_mcp.domain.errors import PathRefused, ToolFailure

Identity = tuple[int, int]
"""Device and inode: what a file is, whatever its name."""

_MAX_LINKS: Final = 40
_MAX_DEPTH: Final = 64
"""Descriptors held by one walk."""
_MAX_PATH: Final = 4096
"""Bytes."""

_FOLDER: Final = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)
_PASSAGE: Final = _FOLDER | getattr(os, "O_PATH", 0)
"""A folder on the way: Linux asks for no right to list it."""
_FILE: Final = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)

_SERVERS_OWN_PROCESS: Final = Path("/proc")
"""Holds the server's environment and memory, and with them its keys; refused even below a root `/`."""
_ROOT_OF_PROC: Final = 1
"""The inode that Linux gives the root of each /proc, of which more may be mounted, each a device of its own."""


@dataclass(frozen=True, slots=True)
class Opened:
    """An open regular file or folder; the descriptor is closed by `Roots.open`."""

    descriptor: int
    status: os.stat_result

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)


class Roots:
    """The folders that file tools may touch.

    Args:
        paths: absolute; the first is what relative paths start from. A root itself may be a symbolic link.
        denied: the server's own files and folders, refused wherever they are met, hard links included.
        unchanged: folders of the server's own program: read as others, never written to.
    """

    def __init__(self, paths: Sequence[Path], denied: Iterable[Path] = (), unchanged: Iterable[Path] = ()) -> None:
        self._roots = tuple(path.absolute() for path in paths)
        self._spellings = [(_components(str(root)), root) for root in self._roots]
        self._spellings += [(_components(os.path.realpath(root)), root) for root in self._roots]
        self._own = tuple(denied)
        self._denied = (*self._own, _SERVERS_OWN_PROCESS)
        self._unchanged = tuple(unchanged)

    @property
    def paths(self) -> Sequence[Path]:
        """The roots as they were given, absolute."""
        return self._roots

    @contextmanager
    def open(self, path: str) -> Generator[Opened]:
        """Open the regular file or folder at `path`, to be read; relative paths start from the first root.

        Raises:
            PathRefused: it leads outside the roots, to a file of the server itself, or to what is no file or folder.
            ToolFailure: there are no roots, or it is missing, unreadable or no path at all.
        """
        self.check(path)
        try:
            with closing(Walk(self, path)) as walk:
                descriptor = walk.arrive()
            try:
                yield Opened(descriptor, os.fstat(descriptor))
            finally:
                os.close(descriptor)
        except OSError as error:
            raise failure_of(error, path) from error

    def check(self, path: str) -> None:
        """Refuse what cannot be walked at all.

        Raises:
            PathRefused: no file can have this name.
            ToolFailure: there are no roots, or no path.
        """
        if not self._roots:
            raise ToolFailure(
                "no folder is open to file tools: name some in tools.roots of the configuration file, or in "
                "TELEMETRYFLOW_MCP_TOOLS_ROOTS, and restart tfo-mcp"
            )
        if os.open not in os.supports_dir_fd:
            raise ToolFailure(
                "file tools are off on this platform: it has no way to open files that is safe from swaps"
            )
        if not path:
            raise ToolFailure("the path is empty; '.' is the first root")
        if "\0" in path:
            raise PathRefused("a path cannot hold a NUL character")
        try:
            size = len(os.fsencode(path))
        except UnicodeEncodeError as error:
            raise PathRefused("the path holds half of a surrogate pair, which no file name can") from error
        if size > _MAX_PATH:
            raise PathRefused(f"the path is longer than {_MAX_PATH} bytes")

    def place(self, path: str) -> tuple[Path, list[str]] | None:
        """The root that `path` starts from and the components below it; None when it is in no root."""
        components = _components(path)
        if not path.startswith("/"):
            return self._roots[0], components
        for prefix, root in self._spellings:
            if components[: len(prefix)] == prefix:
                return root, components[len(prefix) :]
        return None

    def holds(self, path: Path) -> bool:
        """Whether what `path` really is lies in a root, whatever the spelling of either."""
        roots = {identity(root.stat()) for root in self._roots if root.exists()}
        real = Path(os.path.realpath(path))
        return any(identity(place.stat()) in roots for place in (real, *real.parents) if place.exists())

    @property
    def folders(self) -> tuple[Path, ...]:
        """The roots as they really are, those that are there."""
        return tuple(Path(os.path.realpath(root)) for root in self._roots if root.is_dir())

    @property
    def hidden(self) -> tuple[Path, ...]:
        """The server's own files and folders as they really are, or would be."""
        return tuple(Path(os.path.realpath(path)) for path in self._own)

    @property
    def unchanged(self) -> tuple[Path, ...]:
        """Folders in the roots that hold the server's own program, as they really are."""
        real = [Path(os.path.realpath(path)) for path in self._unchanged]
        return tuple(path for path in real if path.is_dir() and self.holds(path))

    @property
    def replaceable(self) -> Path | None:
        """A symbolic link in a root on the way to the server's own files, which leads elsewhere once it is replaced."""
        for path in self._own:
            for place in (path.absolute(), *path.absolute().parents):
                if place.is_symlink() and self.holds(place.parent):
                    return place
        return None

    def denied(self) -> frozenset[Identity]:
        """What the denied paths are at this moment."""
        return _identities_of(self._denied)

    def program(self) -> frozenset[Identity]:
        """What the folders of the server's own program are at this moment."""
        return _identities_of(self._unchanged)

    def reserved(self) -> frozenset[tuple[Identity, str]]:
        """Where the denied paths stand or would come to be: a folder that is there, and a name in it as `folded`."""
        found: set[tuple[Identity, str]] = set()
        for path in {*self._denied, *(Path(os.path.realpath(path)) for path in self._denied)}:
            for place in (path, *path.parents):
                with suppress(OSError):  # not there, so it is the one above it that matters
                    found.add((identity(place.parent.stat()), folded(place.name)))
                    break
        return frozenset(found)

    def is_linked_from_denied(self, status: os.stat_result) -> bool:
        """Whether the file is another name of one inside a denied folder."""
        if not stat.S_ISREG(status.st_mode) or status.st_nlink == 1:
            return False
        for folder in self._denied:
            with suppress(OSError):  # not there
                # Hard links stay on one file system.
                if folder.stat().st_dev == status.st_dev and identity(status) in _identities_below(folder):
                    return True
        return False


class Walk:
    """One walk from a root to what a path names. Holds the descriptors of the folders it stands in."""

    def __init__(self, roots: Roots, path: str) -> None:
        self._roots = roots
        self._path = path
        self._denied = roots.denied()
        self._stack: list[int] = []
        self._todo: list[str] = []
        self._links = 0

    def arrive(self) -> int:
        """A readable descriptor of the file or folder at the end; the caller closes it."""
        found = self._go()
        return enter(self._stack[-1], ()) if found is None else self._open_file(*found)

    def _go(self) -> tuple[str, int] | None:
        """Walk to the end: a name in the folder where it stands then, and its mode; None when it is that folder."""
        self._start(self._path)
        while self._todo:
            name = self._todo.pop()
            if name == ".":
                continue
            if name == "..":
                self._go_back()
                continue
            mode = self._look(name)
            if stat.S_ISLNK(mode):
                self._follow(name)
            elif stat.S_ISDIR(mode):
                self._hold(os.open(name, _PASSAGE, dir_fd=self._stack[-1]))
            elif self._todo:
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            else:
                return name, mode
        return None

    def _look(self, name: str) -> int:
        """The mode of what is called `name` in the folder where the walk stands."""
        return os.stat(name, dir_fd=self._stack[-1], follow_symlinks=False).st_mode

    def close(self) -> None:
        while self._stack:
            os.close(self._stack.pop())

    def _start(self, path: str) -> None:
        place = self._roots.place(path)
        if place is None:
            raise PathRefused(f"{quoted(self._path)} leads outside the folders that are open to file tools")
        root, components = place
        self.close()
        # The root is the operator's own word: only below it may nothing lead astray.
        self._hold(os.open(root, _PASSAGE & ~getattr(os, "O_NOFOLLOW", 0)))
        self._todo += reversed(components)

    def _hold(self, descriptor: int) -> None:
        self._stack.append(descriptor)
        if len(self._stack) > _MAX_DEPTH:
            raise PathRefused(f"{quoted(self._path)} is more than {_MAX_DEPTH} folders deep")
        status = os.fstat(descriptor)
        self._refuse_denied(status)
        if status.st_ino == _ROOT_OF_PROC and os.access("self/environ", os.F_OK, dir_fd=descriptor):
            self._refuse_own()

    def _go_back(self) -> None:
        if len(self._stack) == 1:
            raise PathRefused(f"{quoted(self._path)} leads outside the folders that are open to file tools")
        os.close(self._stack.pop())

    def _follow(self, name: str) -> None:
        self._links += 1
        if self._links > _MAX_LINKS:
            raise PathRefused(f"{quoted(self._path)} goes through more than {_MAX_LINKS} symbolic links")
        target = os.readlink(name, dir_fd=self._stack[-1])
        if target.startswith("/"):
            self._start(target)
        else:
            self._todo += reversed(_components(target))

    def _open_file(self, name: str, mode: int) -> int:
        self._refuse_special(mode)  # opening a device can do something, opening a FIFO can wait
        descriptor = os.open(name, _FILE, dir_fd=self._stack[-1])
        try:
            status = os.fstat(descriptor)
            self._refuse_special(status.st_mode)
            self._refuse_denied(status)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _refuse_denied(self, status: os.stat_result) -> None:
        if identity(status) in self._denied or self._roots.is_linked_from_denied(status):
            self._refuse_own()

    def _refuse_own(self) -> NoReturn:
        raise PathRefused(f"{quoted(self._path)} is one of the server's own files, which file tools never touch")

    def _refuse_special(self, mode: int) -> None:
        if not stat.S_ISREG(mode):
            raise PathRefused(f"{quoted(self._path)} is a device, pipe or socket, not a file or folder")


def roots_in_force(configured: Sequence[Path] | None, cwd: Path) -> Sequence[Path]:
    """`configured`, or the default where nothing is."""
    return default_roots(cwd, _home()) if configured is None else configured


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:  # a user without one, in a container for example
        return Path("/")


def default_roots(cwd: Path, home: Path) -> tuple[Path, ...]:
    """The roots where none are set: the working directory, unless home lies in it or is it."""
    cwd, home = cwd.resolve(), home.resolve()
    return () if home.is_relative_to(cwd) else (cwd,)


def own_program() -> set[Path]:
    """The folders that the next start would run code from. Those of other projects on the module path are not in it."""
    of_python = (Path(sys.prefix), Path(sys.base_prefix))
    modules = {path for path in map(Path, sys.path) if any(folder in path.parents for folder in of_python)}
    environment = {Path(sys.prefix)} if sys.prefix != sys.base_prefix else set[Path]()
    return modules | environment | {Path(tfo_mcp.__file__).parent.parent}


def enter(folder: int, names: Sequence[str]) -> int:
    """A readable descriptor of the folder `names` below `folder`, reached through no link; the caller closes it.

    Raises:
        OSError: it is gone, is no folder any more, or may not be read.
    """
    descriptor = os.open(".", _FOLDER, dir_fd=folder)
    for name in names:
        try:
            following = os.open(name, _FOLDER, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        descriptor = following
    return descriptor


def identity(status: os.stat_result) -> Identity:
    return status.st_dev, status.st_ino


def quoted(path: str) -> str:
    """`path` as its caller gave it, for a sentence: escaped and at most 200 characters."""
    return repr(path if len(path) <= 200 else path[:200] + "…")  # noqa: PLR2004  # said above


def folded(name: str) -> str:
    """What file systems may take `name` for that ignore case, or characters that cannot be seen."""
    return "".join(filter(str.isprintable, name)).casefold()


def failure_of(error: OSError, path: str, doing: Literal["read", "written"] = "read") -> ToolFailure:
    """One sentence about a failed operation on `path`; says nothing of what the path resolved to."""
    match error.errno:
        case errno.ENOENT:
            return ToolFailure(f"there is no {quoted(path)}")
        case errno.EACCES | errno.EPERM:
            return ToolFailure(f"the server has no permission to {_INFINITIVES[doing]} {quoted(path)}")
        case errno.ENOTDIR | errno.ELOOP:
            return ToolFailure(f"{quoted(path)} goes through something that is not a folder")
        case errno.ENAMETOOLONG:
            return ToolFailure(f"a name in {quoted(path)} is too long")
        case number:
            reason = os.strerror(number) if number else type(error).__name__
            return ToolFailure(f"{quoted(path)} cannot be {doing}: {reason}")


_INFINITIVES: Final = {"read": "read", "written": "write"}


def _components(path: str) -> list[str]:
    """The names in `path`; a slash at the end becomes '.', so that it asks for a folder."""
    names = [name for name in path.split("/") if name]
    return [*names, "."] if path.endswith("/") and names else names


def _identities_of(paths: Iterable[Path]) -> frozenset[Identity]:
    found: set[Identity] = set()
    for path in paths:
        with suppress(OSError):  # not there, so nothing can lead to it
            found.add(identity(path.stat()))
    return frozenset(found)


def _identities_below(folder: Path) -> Iterator[Identity]:
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # gone since it was listed
                yield identity(Path(parent, name).lstat())
