"""Glob patterns over relative paths, matched without backtracking into what was matched already."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Sequence

from tfo_mcp.domain.errors import ToolFailure

_Component = Callable[[str], object] | None
"""Matches one name; None stands for `**`, any number of folders."""


def compile_pattern(pattern: str) -> Callable[[Sequence[str]], bool]:
    """A test of a path, given as its names.

    A pattern without a slash is tested against the last name, at any depth; one with a slash against the whole
    path. `*`, `?` and `[…]` stay within one name, `**` is any number of folders, and at the end at least one name.

    Raises:
        ToolFailure: the pattern could never match.
    """
    names = pattern.removeprefix("./").split("/")
    if "" in names or ".." in names or "." in names:
        raise ToolFailure("the pattern must be relative to path and go down only, such as '*.py' or 'src/**/*.py'")
    if len(names) == 1:
        matches = _component(names[0]) or _component("*")
        return lambda path: matches is not None and matches(path[-1]) is not None
    if names[-1] == "**":
        names.append("*")
    components = [_component(name) for name in names]
    return lambda path: _matches(components, path)


def _component(name: str) -> _Component:
    return None if name == "**" else re.compile(fnmatch.translate(name)).match


def _matches(components: Sequence[_Component], path: Sequence[str]) -> bool:
    """At a mismatch only the last `**` takes one name more: what stood before it never has to be tried again."""
    at, seen = 0, 0
    retry_at, retry_seen = -1, 0
    while seen < len(path):
        component = components[at] if at < len(components) else _nothing
        if component is None:
            retry_at, retry_seen = at, seen
            at += 1
        elif component(path[seen]):
            at, seen = at + 1, seen + 1
        elif retry_at >= 0:
            retry_seen += 1
            at, seen = retry_at + 1, retry_seen
        else:
            return False
    return all(component is None for component in components[at:])


def _nothing(name: str) -> object:  # noqa: ARG001  # the end of the pattern matches no name
    return None
