"""From file, environment and command line to one checked `Settings`.

Precedence: command line, `TELEMETRYFLOW_*`, `OTEL_*` and `ANTHROPIC_*`, file, default.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import cast

import msgspec

from tfo_mcp.infrastructure.config.environment import from_environment, from_flags, unknown_variables_warning
from tfo_mcp.infrastructure.config.file import read_configuration, unread_file_warning
from tfo_mcp.infrastructure.config.given import Given, Sayings, quoted
from tfo_mcp.infrastructure.config.legacy import without_retired
from tfo_mcp.infrastructure.config.settings import (
    SECTIONS,
    ConfigurationError,
    Secret,
    Settings,
    all_names,
    is_setting,
)

_YES_OR_NO: Mapping[str, object] = {
    **dict.fromkeys(("yes", "y", "on", "t"), True),
    **dict.fromkeys(("no", "n", "off", "f"), False),
}
"""What version 1.2 took for true or false beside the words themselves."""
_OTHER_WORDS: Mapping[str, Mapping[str, object]] = {
    "claude.thinking": _YES_OR_NO,
    "logging.level": {"warn": "warning"},
    "mcp.enable_tools": _YES_OR_NO,
    "mcp.enable_resources": _YES_OR_NO,
    "mcp.enable_prompts": _YES_OR_NO,
    "mcp.enable_logging": _YES_OR_NO,
    "telemetry.protocol": {"http": "http/protobuf"},
    "telemetry.enabled": _YES_OR_NO,
    "telemetry.insecure": _YES_OR_NO,
    "telemetry.capture_content": _YES_OR_NO,
    "telemetry.logs": _YES_OR_NO,
    "telemetry.recorder": _YES_OR_NO,
    "telemetry.compression": {"gzip": True, "none": False, **_YES_OR_NO},
}
_ANY_CASE = frozenset({"logging.format", *_OTHER_WORDS})
_PATHS = frozenset({"tools.roots", "storage.folder", "logging.output"})


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings in force.

    Attributes:
        source: the file they were read from, None without one.
        warnings: at most one of each kind.
        origins: `section.key` to where it was given: a file and its line, a variable, or the command line.
    """

    settings: Settings
    source: Path | None
    warnings: tuple[str, ...]
    origins: Mapping[str, str]

    def placed(self, error: ConfigurationError) -> ConfigurationError:
        """`error`, whose sentence begins with the name of a setting, behind the place where that was given."""
        origin = self.origins.get(str(error).partition(" ")[0].rstrip(":"))
        return error if origin is None else ConfigurationError(f"{origin}: {error}")


def load_settings(
    *, config_path: Path | None, flags: Mapping[str, object], environ: Mapping[str, str], cwd: Path
) -> Loaded:
    """Read, merge and check.

    Args:
        config_path: the file that was named with `--config`.
        flags: `section.key` to its value on the command line; None where it was not given.
        environ: the environment variables.
        cwd: absolute; relative paths of flags and variables start here, those of a file in its own folder.

    Raises:
        ConfigurationError: the first thing that is wrong, where it is wrong, and what it should be.
    """
    source, from_file = read_configuration(config_path, environ, cwd)
    given, retired = without_retired({**from_file, **from_environment(environ, cwd), **from_flags(flags, cwd)})
    _refuse_unknown(given)
    settings = _convert(given)
    missing_roots = _check_roots(settings, given)
    warnings = (retired, missing_roots, unknown_variables_warning(environ), unread_file_warning(source, cwd))
    origins = {name: saying.origin for name, saying in given.items()}
    return Loaded(settings, source, tuple(filter(None, warnings)), origins)


def _refuse_unknown(given: Sayings) -> None:
    for name, saying in given.items():
        if name in SECTIONS:
            raise ConfigurationError(f"{saying.origin}: {name!r} must be a mapping of settings")
        if not is_setting(name):
            section, _, key = name.rpartition(".")
            what = f"setting {quoted(key)} in section {section!r}" if section else f"section {quoted(key)}"
            raise ConfigurationError(f"{saying.origin}: unknown {what}{_hint(section, key)}")


def _hint(section: str, key: str) -> str:
    """The same name elsewhere, else the nearest name beside it."""
    from difflib import get_close_matches

    beside = SECTIONS.get(section, Settings).__struct_fields__
    elsewhere = [name for name in all_names() if name.rpartition(".")[2] == key]
    near = [*elsewhere, *get_close_matches(key.lower(), beside, n=1)]
    return f"; did you mean {near[0]!r}?" if near else ""


def _check_roots(settings: Settings, given: Sayings) -> str | None:
    """Refuse a root that is no folder, and warn of one that is not there: it may be a disk that comes later."""
    missing: list[str] = []
    for root in settings.tools.roots or ():
        if not os.path.lexists(root):
            missing.append(str(root))
        elif not os.path.isdir(root):  # noqa: PTH112  # Path's raises where it may not look
            raise ConfigurationError(f"{given['tools.roots'].origin}: {root} in tools.roots is not a folder")
    return f"tools.roots names folders that are not there: {', '.join(missing)}" if missing else None


def _convert(given: Sayings) -> Settings:
    try:
        return msgspec.convert(_merged(given), Settings, strict=False, dec_hook=_decode)
    except msgspec.ValidationError as error:
        # Only the place is taken from it: its text may hold the value, and the value be a secret.
        name = re.findall(r"\$\.(\w+(?:\.\w+)+)", str(error))[-1]
    except RuntimeError:
        raise ConfigurationError(
            "storage.folder must be set, because the user of this process has no home folder"
        ) from None
    from tfo_mcp.infrastructure.config.values import expected

    section, _, key = name.rpartition(".")
    words = expected(section, key)
    is_unquoted = words.startswith("text") and isinstance(given[name].value, int | float | date)
    hint = "; put it in quotes" if is_unquoted else ""
    raise ConfigurationError(f"{given[name].origin}: {name} must be {words}{hint}")


def _merged(given: Sayings) -> dict[str, object]:
    """Section to key to value, sections within sections."""
    tree: dict[str, object] = {}
    for name, saying in given.items():
        *sections, key = name.split(".")
        branch = tree
        for section in sections:
            branch = cast("dict[str, object]", branch.setdefault(section, {}))
        branch[key] = _normal(name, saying)
    return tree


def _normal(name: str, saying: Given) -> object:
    value = saying.value
    if name in _PATHS:
        if isinstance(value, list):
            return [_absolute(item, saying.base) for item in cast("list[object]", value)]
        return _absolute(value, saying.base)
    if isinstance(value, str):
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            raise ConfigurationError(f"{saying.origin}: {name} is not Unicode text")
        word = value.lower() if name in _ANY_CASE else value
        return _OTHER_WORDS.get(name, {}).get(word, word)
    return value


def _absolute(value: object, base: Path) -> object:
    if isinstance(value, str) and value not in {"", "stderr"}:
        expanded = os.path.expanduser(value)  # noqa: PTH111  # Path's raises where there is no home
        return os.path.normpath(base / expanded)
    return value


def _decode(kind: type, value: object) -> object:
    if isinstance(value, str) and kind is Secret:
        return Secret(value.strip())  # a block of YAML ends in a line feed
    if isinstance(value, str) and kind is Path and value and "\0" not in value:
        return Path(value)
    raise ValueError
