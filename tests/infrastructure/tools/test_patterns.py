from __future__ import annotations

import time

import pytest

from tfo_mcp.infrastructure.tools.patterns import compile_pattern


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("*.py", "a.py", True),
        ("*.py", "x/y/a.py", True),
        ("*.py", "a.pyc", False),
        ("a?c", "x/abc", True),
        ("a?c", "x/ac", False),
        ("[ab]*", "x/beta", True),
        ("[!ab]*", "x/beta", False),
        ("[", "x/[", True),
        ("*", "x/.hidden", True),
        ("*.PY", "a.py", False),
        ("**", "x/y", True),
        ("src/*.py", "src/a.py", True),
        ("src/*.py", "src/x/a.py", False),
        ("src/*.py", "x/src/a.py", False),
        ("./src/*.py", "src/a.py", True),
        ("src/*", "src", False),
        ("**/*.txt", "a.txt", True),
        ("**/*.txt", "x/y/a.txt", True),
        ("src/**/test_*.py", "src/test_a.py", True),
        ("src/**/test_*.py", "src/x/y/test_a.py", True),
        ("src/**/test_*.py", "src/x/y/a.py", False),
        ("src/**", "src/a", True),
        ("src/**", "src/a/b/c", True),
        ("src/**", "src", False),
        ("src/**", "source/a", False),
        ("**/a/**/b", "a/b", True),
        ("**/a/**/b", "x/a/y/a/z/b", True),
        ("**/a/**/b", "x/a/y/a/z/c", False),
        ("**/a/b/**/c", "a/x/a/b/c", True),
        ("**/**/c", "a/b/c", True),
        ("a/**/**/c", "a/c", True),
        ("**/b/c", "b/b/c", True),
        ("**/b/c", "b/c/d", False),
        ("a.b/c", "aXb/c", False),
    ],
)
def test_a_pattern_matches_what_it_says(pattern: str, path: str, *, matches: bool) -> None:
    assert compile_pattern(pattern)(path.split("/")) is matches


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*a" * 400 + "b", "a" * 255),
        ("/".join(["**", "a"] * 200) + "/b", "/".join(["a"] * 40)),
        ("/".join(["**", "*a*a*a*a*"] * 80) + "/b", "/".join(["a" * 100] * 40)),
    ],
)
def test_no_pattern_takes_long(pattern: str, path: str) -> None:
    matches = compile_pattern(pattern)
    started = time.perf_counter()
    assert not matches(path.split("/"))
    assert time.perf_counter() - started < 0.5
