"""Which test shows which behaviour, read from the tests' source: nothing is imported and nothing runs."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from interaction.behaviour import ROOT

TESTS = ROOT / "tests"


@dataclass(frozen=True, slots=True)
class Claim:
    """A test function and what it claims to show; that may be nothing.

    Attributes:
        file: below `tests`.
        ids: the behaviours that it shows.
        marks: names of its own marks and its file's; those of single cases are not among them.
    """

    file: str
    name: str
    ids: tuple[str, ...]
    marks: frozenset[str]


def read_claims(folder: Path = TESTS) -> Sequence[Claim]:
    """Every test function below the folder, file by file.

    Raises:
        ValueError: a behaviour is named in another way than by plain text in a decorator of a test.
    """
    return [test for path in sorted(folder.rglob("test_*.py")) for test in _tests_of(path, folder)]


def _tests_of(path: Path, folder: Path) -> Iterator[Claim]:
    file = path.relative_to(folder).as_posix()
    module = ast.parse(path.read_text("utf-8"))
    of_file = {name for node in module.body if _sets_pytestmark(node) for name, _ in _marks(node)}
    named = 0
    for node in module.body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or not node.name.startswith("test_"):
            continue
        marks = [mark for decorator in node.decorator_list for mark in _marks(decorator, deep=False)]
        behaviours = [arguments for name, arguments in marks if name == "behaviour"]
        named += len(behaviours)
        ids = tuple(_text(argument, f"{file}:{node.name}") for arguments in behaviours for argument in arguments)
        yield Claim(file, node.name, ids, frozenset(of_file | {name for name, _ in marks}))
    if named != sum(name == "behaviour" for name, _ in _marks(module)):
        raise ValueError(f"{file} names a behaviour elsewhere than on a test")


def _sets_pytestmark(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and any(
        isinstance(to, ast.Name) and to.id == "pytestmark" for to in node.targets
    )


def _marks(root: ast.AST, *, deep: bool = True) -> Iterator[tuple[str, Sequence[ast.expr]]]:
    """Name and arguments of the `pytest.mark.<name>` that `root` is, or of all within it."""
    called = {node.func: node.args for node in ast.walk(root) if isinstance(node, ast.Call)}
    outermost = root.func if isinstance(root, ast.Call) else root
    for node in ast.walk(root) if deep else [outermost]:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute) and node.value.attr == "mark":
            yield node.attr, called.get(node, [])


def _text(argument: ast.expr, where: str) -> str:
    if not isinstance(argument, ast.Constant) or not isinstance(argument.value, str):
        raise ValueError(f"{where} names a behaviour that is no plain text: {ast.unparse(argument)}")  # noqa: TRY004  # of a file
    return argument.value
