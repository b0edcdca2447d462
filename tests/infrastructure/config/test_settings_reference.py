from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import msgspec.inspect
import yaml

from tfo_mcp.infrastructure.config import Secret, Settings, masked
from tfo_mcp.infrastructure.config.environment import variables_of
from tfo_mcp.infrastructure.config.settings import SECTIONS, all_names, settings_of
from tfo_mcp.infrastructure.config.template import template
from tfo_mcp.infrastructure.config.values import expected

REFERENCE = Path(__file__).parents[3] / "docs" / "reference" / "settings.md"


def described_settings() -> list[str]:
    """A table row for each setting, from the Structs."""
    rows: list[str] = []
    for section, struct in SECTIONS.items():
        info = cast("msgspec.inspect.StructType", msgspec.inspect.type_info(struct))
        fields = {field.name: field for field in info.fields}
        for field in map(fields.__getitem__, settings_of(section)):
            name = f"{section}.{field.name}"
            metadata = cast("dict[str, str]", cast("Any", field.type).extra_json_schema)
            variables = "<br>".join(f"`{variable}`" for variable in variables_of(name))
            rows.append(
                f"| `{name}` | {_default(field.default)} | {expected(section, field.name)} "
                f"| {metadata['description']} | {variables} |"
            )
    return rows


def _default(value: object) -> str:
    if value in (None, (), msgspec.NODEFAULT) or (isinstance(value, Secret) and not value):
        return "not set"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def test_the_reference_describes_every_setting_and_no_other() -> None:
    documented = [line for line in REFERENCE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]

    assert documented == described_settings()


def test_the_reference_names_the_section_of_each_table() -> None:
    headings = [line for line in REFERENCE.read_text(encoding="utf-8").splitlines() if line.startswith("## ")]

    assert [heading for heading in headings if heading.startswith("## `")] == [f"## `{name}`" for name in SECTIONS]


def names_in(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Every `section.key` of a tree of settings."""
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if name in SECTIONS:
            yield from names_in(value, f"{name}.")
        else:
            yield name


def test_every_setting_is_shown_among_those_in_force() -> None:
    assert sorted(names_in(masked(Settings()))) == sorted(all_names())


def test_every_setting_stands_in_the_file_that_init_config_writes() -> None:
    unmarked = re.sub(r"^( *)#(?=\w)", r"\1", template(), flags=re.MULTILINE)

    assert sorted(names_in(yaml.safe_load(unmarked))) == sorted(all_names())
    assert set(yaml.safe_load(template()).keys()) == {name for name in SECTIONS if "." not in name}
