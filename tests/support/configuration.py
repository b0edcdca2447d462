"""A configuration file, an environment and a working directory of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tfo_mcp.infrastructure.config import ConfigurationError, Loaded, load_settings


def load(
    folder: Path,
    text: str = "",
    *,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
) -> Loaded:
    """Load `folder/etc/config.yaml`, which says `text`, with `folder/work` as the working directory."""
    (folder / "etc").mkdir(exist_ok=True)
    (folder / "work").mkdir(exist_ok=True)
    file = folder / "etc" / "config.yaml"
    file.write_text(text, encoding="utf-8")
    return load_settings(config_path=file, flags=flags or {}, environ=environ or {}, cwd=folder / "work")


def refusal(folder: Path, text: str = "", **world: Mapping[str, str]) -> str:
    """The sentence with which loading is refused, without the file's path."""
    with pytest.raises(ConfigurationError) as refused:
        load(folder, text, **world)
    return str(refused.value).replace(f"{folder}/etc/config.yaml, ", "")
