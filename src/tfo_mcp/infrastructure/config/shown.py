"""Settings as they may be told: by the server's own resources, and in what it keeps of itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tfo_mcp.infrastructure.config.settings import SECTIONS, Settings, masked

_URLS = (("claude", "base_url"), ("telemetry", "endpoint"))


def shown_settings(settings: Settings) -> dict[str, dict[str, Any]]:
    """Section to setting to value; secrets are masked, and of a URL's path nothing is said.

    Some services have their users put a token there.
    """
    shown = masked(settings)
    for section, key in _URLS:
        if url := shown[section][key]:
            shown[section][key] = re.sub(r"(?<=[^/:])/.+", "/***", url, count=1)
    return shown


def changed_settings(settings: Settings) -> dict[str, object]:
    """Those that are not at their defaults, as `section.key`."""
    shown, defaults = _flat(shown_settings(settings)), _flat(masked(Settings()))
    return {name: value for name, value in shown.items() if value != defaults.get(name)}


def _flat(sections: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in sections.items():
        inner = f"{prefix}{name}"
        if inner in SECTIONS:
            flat |= _flat(value, f"{inner}.")
        else:
            flat[inner] = value
    return flat
