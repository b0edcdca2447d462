"""The page on the stand-in, and its docstring, keep step with the script's keys and the routes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from tfo_mcp.infrastructure import fake_claude
from tfo_mcp.infrastructure.fake_claude import Reply, Script, ToolUse, When, build_app, load_script
from tfo_mcp.infrastructure.fake_claude.script import Cut, StreamError

if TYPE_CHECKING:
    from starlette.routing import Route

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "fake-claude.md").read_text(encoding="utf-8")
INNER = {"when": When, "tool_use": ToolUse, "cut": Cut, "stream_error": StreamError}


def section(title: str) -> str:
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def names_in(table: str) -> list[str]:
    """What stands in the first column."""
    return [line.split("`")[1] for line in table.splitlines() if line.startswith("| `")]


def keys() -> list[str]:
    inner = [f"{name}.{key}" for name, struct in INNER.items() for key in struct.__struct_fields__]
    return [*Reply.__struct_fields__, *inner]


def test_the_page_has_every_key_of_a_script_and_no_other() -> None:
    assert names_in(section("Scripts")) == keys()


def test_the_docstring_names_every_key() -> None:
    documented = fake_claude.__doc__ or ""
    for key in keys():
        last = key.rpartition(".")[2]
        assert f"`{last}`" in documented or f"{last}:" in documented, key


def test_the_page_has_every_route_and_no_other() -> None:
    routes = [cast("Route", route) for route in build_app(Script()).routes]
    served = [f"{method} {route.path}" for route in routes for method in (route.methods or set[str]()) - {"HEAD"}]
    assert names_in(section("Start")) == served


def test_the_script_on_the_page_and_that_of_the_docstring_can_be_loaded() -> None:
    on_page = PAGE.partition("```yaml\n")[2].partition("```")[0]
    in_docstring = (fake_claude.__doc__ or "").partition("with one key:\n\n")[2].partition("\n\n- ")[0]
    assert len(load_script(on_page).replies) == 11
    assert len(load_script(in_docstring).replies) == 8
