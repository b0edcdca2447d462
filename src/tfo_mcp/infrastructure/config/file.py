"""The configuration file: where it may stand, and its YAML with the line of each setting."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tfo_mcp.infrastructure.config.given import Given, Sayings, quoted
from tfo_mcp.infrastructure.config.legacy import has_gone
from tfo_mcp.infrastructure.config.settings import SECTIONS, ConfigurationError, is_setting

if TYPE_CHECKING:
    import yaml

VARIABLE = "TELEMETRYFLOW_MCP_CONFIG"
_MAX_BYTES = 1024 * 1024
_HOME = Path(".config/tfo-mcp/config.yaml")
"""Where version 1.2 looked in the home folder, on every platform."""
_MACHINE = Path("/etc/tfo-mcp/config.yaml")
_UNTRUSTED = ("tfo-mcp.yaml", "configs/tfo-mcp.yaml")
"""Where version 1.2 looked in the working directory."""

_CONTENTS = re.compile(r""" (['"])(?![<\\]).{2,}\1""")
"""What a YAML error quotes of the file (an anchor, a tag), and no token of YAML or single character."""


def read_configuration(config_path: Path | None, environ: Mapping[str, str], cwd: Path) -> tuple[Path | None, Sayings]:
    """The file that is named, else the first that is found; and what it says.

    Raises:
        ConfigurationError: a named file is missing; or a file cannot be read, or is not what it should be.
    """
    path = named_path(config_path, environ, cwd)
    if path is not None:
        data = _read(path)
        if data is None:
            origin = "--config" if config_path else VARIABLE
            raise ConfigurationError(f"{origin}: there is no file {path}")
        return path, _parse(path, data)
    for path in default_paths():
        data = _read(path)
        if data is not None:
            return path, _parse(path, data)
    return None, {}


def named_path(config_path: Path | None, environ: Mapping[str, str], cwd: Path) -> Path | None:
    """The file that the command line or else the variable names."""
    named = str(config_path) if config_path else environ.get(VARIABLE)
    return cwd / os.path.expanduser(named) if named else None  # noqa: PTH111  # Path's raises where there is no home


def default_paths() -> tuple[Path, ...]:
    """Where a file is looked for that nobody names, the first that is there counts: the user's, then the machine's."""
    paths: list[Path] = []
    if (users := user_path()) is not None:
        paths += [users, Path.home() / _HOME]
    if os.name == "posix":
        paths.append(_MACHINE)
    return tuple(dict.fromkeys(paths))


def user_path() -> Path | None:
    """The user's own file, whether it is there or not; None for a user without a home folder."""
    import platformdirs

    try:
        Path.home()
        return platformdirs.user_config_path("tfo-mcp", appauthor=False) / "config.yaml"
    except RuntimeError:
        return None


def unread_file_warning(source: Path | None, cwd: Path) -> str | None:
    """One sentence when there is a file that version 1.2 would have read from the working or the home folder."""
    for name in _UNTRUSTED:
        if _is_another(found := cwd / name, source):
            place = next(iter(default_paths()), "your configuration folder")
            return (
                f"{found} is not read, because a working directory may be anybody's: "
                f"name it with --config, or move it to {place}"
            )
    if source is not None and source == user_path() and _is_another(found := Path.home() / _HOME, source):
        return f"{found} is not read, because {source} comes before it"
    return None


def _is_another(found: Path, source: Path | None) -> bool:
    try:
        return found.is_file() and not (source and found.samefile(source))
    except OSError:
        return False


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
        if root is None or (isinstance(root, yaml.ScalarNode) and not root.value):
            return {}
        return dict(_settings(path, loader, root))
    except yaml.MarkedYAMLError as error:
        where = f"{path}, line {error.problem_mark.line + 1}" if error.problem_mark else str(path)
        raise ConfigurationError(f"{where}: {_problem(error)}") from None
    except yaml.YAMLError:
        raise ConfigurationError(f"{path} has a character that YAML does not allow") from None
    except RecursionError:
        raise ConfigurationError(f"{path} is nested too deep") from None


def _problem(error: yaml.MarkedYAMLError) -> str:
    """What is wrong with the YAML. The error's own text quotes the file, and in it perhaps a key."""
    problem = str(error.problem)
    if problem == "second occurrence" or problem.startswith("but "):
        problem = f"{error.context}, {problem}"
    return _CONTENTS.sub("", problem)


def _settings(path: Path, loader: yaml.SafeLoader, root: yaml.Node) -> Iterator[tuple[str, Given]]:
    import yaml

    def given(node: yaml.Node, key: yaml.Node) -> Given:
        origin = f"{path}, line {_line(key)}"
        try:
            value = cast("Any", loader).construct_object(node, deep=True)
        except yaml.YAMLError:
            raise
        except Exception:  # noqa: BLE001  # whatever PyYAML meets in a date or number that there is not, or in a tag
            raise ConfigurationError(f"{origin}: the value of {quoted(key.value)} cannot be read") from None
        return Given(value, origin, path.parent)

    def sayings(mapping: yaml.MappingNode, prefix: str) -> Iterator[tuple[str, Given]]:
        for key, node in mapping.value:
            if "." in key.value:
                where = f"{path}, line {_line(key)}"
                raise ConfigurationError(f"{where}: {quoted(key.value)} is no name, because it has a dot")
            name = f"{prefix}{key.value}"
            if name in SECTIONS and isinstance(node, yaml.MappingNode):
                yield from sayings(node, f"{name}.")
                continue
            saying = given(node, key)
            if saying.value in (None, "") and (name in SECTIONS or is_setting(name) or has_gone(name)):
                continue
            yield name, saying

    _refuse_duplicates(path, root, set())
    if not isinstance(root, yaml.MappingNode):
        raise ConfigurationError(f"{path}, line {_line(root)}: the file must be a mapping of sections to settings")
    yield from sayings(root, "")


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
            if key.value in lines:
                first = lines[key.value]
                where = f"{path}, line {_line(key)}"
                raise ConfigurationError(
                    f"{where}: {quoted(key.value)} is here a second time, the first is in line {first}"
                )
            lines[key.value] = _line(key)
            _refuse_duplicates(path, value, seen)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
