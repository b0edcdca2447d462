"""What lies below a folder: breadth first, through no symbolic link, with a bounded number of descriptors."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

from tfo_mcp.domain.tool import Abandonable
from tfo_mcp.infrastructure.tools.roots import Identity, enter, identity

Names = tuple[str, ...]
"""A path below the folder, one name after the other."""

Entry = os.DirEntry[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeLimits:
    """How much of a tree is seen: entries in all, and levels below the folder."""

    entries: int
    depth: int


class Tree:
    """One walk below an open folder.

    Args:
        folder: its descriptor.
        denied: what is never shown nor entered.
        skip: names of folders that are shown but not entered.

    Attributes:
        complete: whether all was seen; False once a limit cut it, or a folder could not be read.
    """

    def __init__(
        self,
        folder: int,
        *,
        denied: frozenset[Identity],
        skip: frozenset[str],
        limits: TreeLimits,
        context: Abandonable,
    ) -> None:
        self._folder = folder
        self._denied = denied
        self._denied_inodes = {inode for _, inode in denied}
        self._skip = skip
        self._limits = limits
        self._context = context
        self._left = limits.entries
        self.complete = True

    def walk(self, *, recursive: bool) -> Generator[tuple[Names, Entry]]:
        """Each entry, the nearest first and then by name; its status can be had until the next is asked for."""
        pending: deque[Names] = deque([()])
        while pending and self._left > 0:
            parent = pending.popleft()
            try:
                with closing(self._entries(parent)) as entries:
                    for entry in entries:
                        names = (*parent, entry.name)
                        yield names, entry
                        if recursive and entry.is_dir(follow_symlinks=False) and entry.name not in self._skip:
                            self._plan(names, pending)
            except OSError:  # gone since it was listed, or not for this user
                self.complete = False
        self.complete = self.complete and not pending

    def _plan(self, names: Names, pending: deque[Names]) -> None:
        if len(names) < self._limits.depth:
            pending.append(names)
        else:
            self.complete = False

    def _entries(self, parent: Names) -> Generator[Entry]:
        descriptor = enter(self._folder, parent)
        try:
            if identity(os.fstat(descriptor)) in self._denied:
                return
            with os.scandir(descriptor) as scan:
                found = sorted(islice(self._checked(scan), self._left), key=lambda entry: entry.name)
                self.complete = self.complete and next(scan, None) is None
            self._left -= len(found)
            for entry in found:
                self._context.check()
                if not self._is_denied(entry):
                    yield entry
        finally:
            os.close(descriptor)

    def _checked(self, scan: Iterator[Entry]) -> Iterator[Entry]:
        for entry in scan:
            self._context.check()
            yield entry

    def _is_denied(self, entry: Entry) -> bool:
        return entry.inode() in self._denied_inodes and identity(entry.stat(follow_symlinks=False)) in self._denied
