"""Files and functions that fit on a page or a few; each exception has its reason."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "tfo_mcp"

MOST_LINES_OF_A_FILE = 400
MOST_LINES_OF_A_FUNCTION = 40

LONG_FILES: Mapping[str, str] = {
    "domain/conversation.py": "an aggregate: what must hold of it holds over all that can happen to it",
    "domain/errors.py": "every error there is, in one tree",
    "infrastructure/config/settings.py": "every setting as data, in one place",
}
"""Path below `src/tfo_mcp` to why it is longer."""

LONG_FUNCTIONS: Mapping[str, str] = {
    "bootstrap/__init__.py:__init__": "the composition root, read from top to bottom",
    "bootstrap/conversations.py:__init__": "its part of conversations",
    "infrastructure/tools/conversations.py:_input_schema": "one tool's arguments as data",
    "infrastructure/tools/telemetry.py:telemetry_tools": "five tools as data",
    "infrastructure/tools/files.py:file_tools": "three tools as data, with their schemas",
    "infrastructure/persistence/migrations/versions/first_0001.py:upgrade": "one revision's tables, as data",
    "infrastructure/persistence/migrations/versions/turns_0002.py:upgrade": "one revision's tables, as data",
}
"""Path and name to why it is longer."""


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Names and lines, decorators not counted, docstrings neither: they may say what they have to."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[1] if ast.get_docstring(node) is not None and len(node.body) > 1 else node.body[0]
            yield f"{path.relative_to(SOURCE).as_posix()}:{node.name}", (node.end_lineno or 0) - first.lineno + 1


def test_no_file_is_longer_than_it_may_be() -> None:
    lengths = {
        path.relative_to(SOURCE).as_posix(): len(path.read_text("utf-8").splitlines()) for path in SOURCE.rglob("*.py")
    }
    assert len(lengths) > 50
    assert {name for name, lines in lengths.items() if lines > MOST_LINES_OF_A_FILE} == set(LONG_FILES)


def test_no_function_is_longer_than_it_may_be() -> None:
    lengths = [at for path in SOURCE.rglob("*.py") for at in functions(path)]
    assert len(lengths) > 400
    assert {name for name, lines in lengths if lines > MOST_LINES_OF_A_FUNCTION} == set(LONG_FUNCTIONS)
