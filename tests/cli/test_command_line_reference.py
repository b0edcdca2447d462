"""docs/reference/command-line.md names what there is."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from tfo_mcp.cli import main
from tfo_mcp.cli.conversations import command as conversations
from tfo_mcp.cli.purge import command as purge
from tfo_mcp.cli.stats import command as stats
from tfo_mcp.cli.tail import command as tail
from tfo_mcp.cli.traces import command as traces

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "command-line.md").read_text("utf-8")

DETAILED = {
    **{f"conversations {name}": verb for name, verb in conversations.commands.items()},
    "purge": purge,
    "tail": tail,
    "stats": stats,
    "traces show": traces.commands["show"],
}


def test_every_verb_is_in_the_table_and_no_other() -> None:
    assert set(re.findall(r"^\| `tfo-mcp ([\w-]+)` \|", PAGE, re.MULTILINE)) == set(
        main.list_commands(click.Context(main))
    )


@pytest.mark.parametrize("verb", DETAILED)
def test_every_option_is_described_with_its_default(verb: str) -> None:
    section = re.split(r"^## ", PAGE.split(f"\n## `tfo-mcp {verb}")[1], flags=re.MULTILINE)[0]
    described = dict(re.findall(r"^\| `(--[\w-]+)[^|]*\|([^|]*)\|", section, re.MULTILINE))
    options = {
        option.opts[0]: option.default
        for option in DETAILED[verb].params
        if isinstance(option, click.Option) and option.name != "config"
    }
    assert set(described) == set(options)
    for name, default in options.items():
        if isinstance(default, int | str) and default not in {False, ""}:
            assert str(default) in described[name], name
