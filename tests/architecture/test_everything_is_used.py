"""What stands in `src` is used there: no code for tests only, and no setting that nobody reads.

A use is a name, whoever's it is: of methods with the same name in several classes, one that is used covers all.
Those that are known to be covered so, and stay, are in `COVERED_BY_A_NAMESAKE`.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tfo_mcp.infrastructure.config.settings import SECTIONS, settings_of

SOURCE = Path(__file__).parents[2] / "src" / "tfo_mcp"
CONFIG = SOURCE / "infrastructure" / "config"

CALLED_FROM_OUTSIDE: Mapping[str, str] = {
    "list_commands": "click asks its groups",
    "get_command": "click asks its groups",
    "format_commands": "click asks its groups",
    "emit": "logging calls its handlers",
    "revision": "Alembic reads its migrations",
    "down_revision": "Alembic reads its migrations",
    "on_end": "OpenTelemetry calls its span processors",
    "startup": "uvicorn calls its servers",
    "cancel_requested": "the MCP SDK asks its dispatch context",
    "send_raw_request": "the MCP SDK asks its dispatch context",
}
"""Names that a framework looks up; each with who uses it."""

COVERED_BY_A_NAMESAKE: Mapping[str, str] = {
    "Conversation.close": "drawn in the diagrams: the edge from Active to Closed",
    "ToolContext.progress": "API for tools, also for those to come",
}
"""Methods that no code in `src` calls, though it calls others of that name; each with why it stays."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Definition:
    """A public name at the top of a module, or a public method; with the lines that it spans."""

    name: str
    path: Path
    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.path.relative_to(SOURCE).as_posix()}:{self.first} {self.name}"


@dataclass(frozen=True)
class Use:
    """A name that is read somewhere, bare or behind a dot."""

    path: Path
    line: int


def modules() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(SOURCE.rglob("*.py")):
        yield path, ast.parse(path.read_text("utf-8"))


def definitions(path: Path, module: ast.Module) -> Iterator[Definition]:
    inside = [node for outer in ast.walk(module) if isinstance(outer, ast.ClassDef) for node in outer.body]
    for node in (*module.body, *(node for node in inside if isinstance(node, Function))):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                names = [name]
            case ast.Assign(targets=targets):
                names = [target.id for target in targets if isinstance(target, ast.Name)]
            case ast.AnnAssign(target=ast.Name(id=name)):
                names = [name]
            case _:
                names = []
        for name in names:
            if not name.startswith("_"):
                yield Definition(name, path, node.lineno, node.end_lineno or node.lineno)


def uses(path: Path, module: ast.Module) -> Iterator[tuple[str, Use]]:
    """An import alone is no use, unless it gives another name."""
    for node in ast.walk(module):
        match node:
            case ast.Name(id=name, ctx=ast.Load()) | ast.Attribute(attr=name, ctx=ast.Load()):
                yield name, Use(path, node.lineno)
            case ast.ImportFrom(names=aliases):
                for alias in aliases:
                    if alias.asname is not None:
                        yield alias.name, Use(path, node.lineno)
            case _:
                pass


def test_every_public_name_is_used_in_the_source_outside_itself() -> None:
    defined: list[Definition] = []
    used: defaultdict[str, set[Use]] = defaultdict(set)
    for path, module in modules():
        defined += definitions(path, module)
        for name, use in uses(path, module):
            used[name].add(use)
    assert len(defined) > 400

    def is_used(at: Definition) -> bool:
        return any(use.path != at.path or not at.first <= use.line <= at.last for use in used[at.name])

    unused = [at for at in defined if not is_used(at)]
    assert [str(at) for at in unused if at.name not in CALLED_FROM_OUTSIDE] == []
    assert {at.name for at in unused} >= set(CALLED_FROM_OUTSIDE), "the list names what is used or gone"


def test_what_a_namesake_covers_is_there_and_has_one() -> None:
    owners: defaultdict[str, set[str]] = defaultdict(set)
    for _, module in modules():
        for owner in ast.walk(module):
            if isinstance(owner, ast.ClassDef):
                for method in owner.body:
                    if isinstance(method, Function):
                        owners[method.name].add(owner.name)
    for listed in COVERED_BY_A_NAMESAKE:
        owner_name, name = listed.split(".")
        assert owners[name] > {owner_name}, listed


# --- settings ---


def reads(module: ast.Module, section: str) -> Iterator[str]:
    """What is read of a section: `….section.x`, and `y.x` where `y = ….section` stands in the same function."""
    section = section.rpartition(".")[2]
    for scope in (module, *(node for node in ast.walk(module) if isinstance(node, Function))):
        aliases = {
            target.id
            for node in ast.walk(scope)
            if isinstance(node, ast.Assign) and _is_section(node.value, section)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(scope):
            match node:
                case ast.Attribute(value=ast.Name(id=name), attr=read) if name in aliases:
                    yield read
                case ast.Attribute(value=owner, attr=read) if _is_section(owner, section):
                    yield read
                case _:
                    pass


def _is_section(node: ast.expr, section: str) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == section


def properties() -> Mapping[str, set[str]]:
    """A property of a section to the settings that it makes its value of."""
    module = ast.parse((CONFIG / "settings.py").read_text("utf-8"))
    return {
        node.name: {
            inner.attr
            for inner in ast.walk(node)
            if isinstance(inner, ast.Attribute) and isinstance(inner.value, ast.Name) and inner.value.id == "self"
        }
        for owner in module.body
        if isinstance(owner, ast.ClassDef)
        for node in owner.body
        if isinstance(node, ast.FunctionDef)
    }


def test_every_setting_is_read_outside_the_configuration() -> None:
    made_of = properties()
    for section in SECTIONS:
        read = {
            name for path, module in modules() if not path.is_relative_to(CONFIG) for name in reads(module, section)
        }
        for name in sorted(read & made_of.keys()):
            read |= made_of[name]
        assert set(settings_of(section)) - read == set(), section
