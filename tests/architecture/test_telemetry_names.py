"""Each name of telemetry has one home, and what the core says of itself is spelt there only."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tfo_mcp.application import attributes
from tfo_mcp.infrastructure.telemetry import conventions

SOURCE = Path(attributes.__file__).parents[1]
HOMES = (Path(attributes.__file__), Path(conventions.__file__))

NAME = re.compile(
    r"(mcp|gen_ai|tfo|error|exception|jsonrpc|rpc|network|service|deployment|process|os|telemetry\.sdk)\.[\w.]+"
)
"""What could be the name of an attribute or metric."""

NO_TELEMETRY = re.compile(r"mcp\.[a-z_]+|tfo\.connection")
"""What looks like one and is none: settings, and what fake-claude keeps in its ASGI scope."""


def names_spelt_out(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and NAME.fullmatch(node.value):
            yield node.value


def names_of(module: object) -> list[str]:
    return [each for name, each in vars(module).items() if name.isupper() and isinstance(each, str)]


def test_no_other_module_spells_a_name_out() -> None:
    spelt = {
        f"{path.relative_to(SOURCE)}: {name}"
        for path in SOURCE.rglob("*.py")
        if path not in HOMES
        for name in names_spelt_out(path)
        if NO_TELEMETRY.fullmatch(name) is None
    }
    assert spelt == set()


def test_no_name_has_two_homes() -> None:
    counted = Counter([*names_of(attributes), *names_of(conventions)])
    assert {name for name, times in counted.items() if times > 1} == set()
    assert len(counted) > 40
