"""The configuration file: where it may stand, and its YAML with the line of each setting."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tfo_mcp.infrastructure.config.given import Given, Sayings
from tfo_mcp.infrastructure.config.settings import SECTIONS, ConfigurationError

if TYPE_CHECKING:
    import yaml

VARIABLE = "TELEMETRYFLOW_MCP_CONFIG"
_MAX_BYTES = 1024 * 1024
_UNTRUSTED = ("tfo-mcp.yaml", "configs/tfo-mcp.yaml")
"""Where version 1.2 looked in the working directory."""


def read_configuration(config_path: Path | None, environ: Mapping[str, str], cwd: Path) -> tuple[Path | None, Sayings]:
    """The file that is named, else the first that is found; and what it says.

    Raises:
        ConfigurationError: a named file is missing; or a file cannot be read, or is not what it should be.
    """
    named = str(config_path) if config_path else environ.get(VARIABLE)
    if named:
        path = cwd / os.path.expanduser(named)  # noqa: PTH111  # Path's raises where there is no home
        data = _read(path)
        if data is None:
            origin = "--config" if config_path else VARIABLE
            raise ConfigurationError(f"{origin}: there is no file {path}")
        return path, _parse(path, data)
    for path in _default_paths():
        data = _read(path)
        if data is not None:
            return path, _parse(path, data)
    return None, {}


def untrusted_file_warning(source: Path | None, cwd: Path) -> str | None:
    """One sentence when the working directory holds a file that version 1.2 would have read."""
    for name in _UNTRUSTED:
        found = cwd / name
        with suppress(OSError):
            if found.is_file() and not (source and found.samefile(source)):
                places = " or ".join(map(str, _default_paths()))
                return (
                    f"{found} is not read, because a working directory may be anybody's: "
                    f"name it with --config, or move it to {places}"
                )
    return None


def _default_paths() -> Iterator[Path]:
    import platformdirs

    with suppress(RuntimeError):  # no home folder, so no file in it
        yield platformdirs.user_config_path("tfo-mcp", appauthor=False) / "config.yaml"
    if os.name == "posix":
        yield Path("/etc/tfo-mcp/config.yaml")


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > _MAX_BYTES:
        raise ConfigurationError(f"{path} is larger than {_MAX_BYTES} bytes")
    return data


def _parse(path: Path, data: bytes) -> Sayings:
    import yaml

    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(f"{path}, line {line}: the file is not UTF-8 text") from None
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        return dict(_settings(path, loader, root)) if root and root.value else {}
    except yaml.MarkedYAMLError as error:
        # The error's own text would quote the line, and with it perhaps a key.
        where = f"{path}, line {error.problem_mark.line + 1}" if error.problem_mark else str(path)
        raise ConfigurationError(f"{where}: {error.problem}") from None
    except yaml.YAMLError:
        raise ConfigurationError(f"{path} has a character that YAML does not allow") from None
    except RecursionError:
        raise ConfigurationError(f"{path} is nested too deep") from None


def _settings(path: Path, loader: yaml.SafeLoader, root: yaml.Node) -> Iterator[tuple[str, Given]]:
    import yaml

    def given(node: yaml.Node, key: yaml.Node) -> Given:
        origin = f"{path}, line {_line(key)}"
        try:
            value = cast("Any", loader).construct_object(node, deep=True)
        except ValueError:  # a date or a number that there is not
            raise ConfigurationError(f"{origin}: the value of {key.value!r} cannot be read") from None
        return Given(value, origin, path.parent)

    def sayings(mapping: yaml.MappingNode, prefix: str) -> Iterator[tuple[str, Given]]:
        for key, node in mapping.value:
            if "." in key.value:
                raise ConfigurationError(f"{path}, line {_line(key)}: {key.value!r} is no name, because it has a dot")
            name = f"{prefix}{key.value}"
            if name in SECTIONS and isinstance(node, yaml.MappingNode):
                yield from sayings(node, f"{name}.")
            elif not _empty(saying := given(node, key)):
                yield name, saying

    _refuse_duplicates(path, root, set())
    if not isinstance(root, yaml.MappingNode):
        raise ConfigurationError(f"{path}, line {_line(root)}: the file must be a mapping of sections to settings")
    yield from sayings(root, "")


def _empty(saying: Given) -> bool:
    return saying.value is None or saying.value == ""


def _refuse_duplicates(path: Path, node: yaml.Node, seen: set[int]) -> None:
    import yaml

    if id(node) in seen:  # an alias
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_duplicates(path, item, seen)
    elif isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise ConfigurationError(f"{path}, line {_line(key)}: a name must be text")
            first = lines.setdefault(key.value, _line(key))
            if first != _line(key):
                raise ConfigurationError(
                    f"{path}, line {_line(key)}: {key.value!r} is here a second time, the first is in line {first}"
                )
            _refuse_duplicates(path, value, seen)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
