"""The configuration file that `tfo-mcp init-config` writes: every setting at its default, none of them set."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap

import msgspec
import yaml

from tfo_mcp import __version__
from tfo_mcp.infrastructure.config.settings import SECTIONS, Secret
from tfo_mcp.infrastructure.config.values import Description, descriptions

_WIDTH = 100
_HEAD = f"""\
# Configuration of tfo-mcp {__version__}.
#
# Every setting stands here at its default and behind a #, so that the default applies. To change one,
# take its # away and write your value. `tfo-mcp validate` checks the file and shows what is in force.
# The command line and environment variables come before this file.
"""


def template() -> str:
    """The file's text; it says nothing to `load_settings`."""
    return "\n".join((_HEAD, *(line for section in SECTIONS for line in _section(section)), ""))


def _section(name: str) -> Iterator[str]:
    *outer, key = name.split(".")
    indent = "  " * len(outer)
    yield f"{indent}{key}:"
    for description in descriptions(name):
        yield from _setting(description, f"{indent}  ")
    yield ""


def _setting(setting: Description, indent: str) -> Iterator[str]:
    about = f"{setting.meaning} ({setting.expected})"
    for line in wrap(about, _WIDTH - len(indent), break_long_words=False, break_on_hyphens=False):
        yield f"{indent}# {line}"
    yield f"{indent}#{_assignment(setting)}"


def _assignment(setting: Description) -> str:
    if setting.default is None or isinstance(setting.default, Secret):
        return f"{setting.key}:"
    value = msgspec.to_builtins(setting.default, enc_hook=str)
    in_brackets: str = yaml.safe_dump([value], default_flow_style=True, allow_unicode=True, width=10_000)
    return f"{setting.key}: {in_brackets.strip()[1:-1]}"
