from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.configuration import load, refusal
from tfo_mcp.infrastructure.config import ConfigurationError, Loaded, Settings, load_settings


def search(cwd: Path, config_path: Path | None = None, **environ: str) -> Loaded:
    return load_settings(config_path=config_path, flags={}, environ=environ, cwd=cwd)


def named(name: str) -> str:
    return f"server: {{name: {name}}}\n"


def test_the_file_is_the_named_one_else_the_variables_else_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("tfo-mcp/config", "variable", "flag"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.yaml").write_text(named(name))

    users = search(tmp_path)
    variables = search(tmp_path, TELEMETRYFLOW_MCP_CONFIG="variable.yaml")
    flags = search(tmp_path, Path("flag.yaml"), TELEMETRYFLOW_MCP_CONFIG="variable.yaml")

    assert (users.settings.server.name, users.source) == ("tfo-mcp/config", tmp_path / "tfo-mcp" / "config.yaml")
    assert (variables.settings.server.name, variables.source) == ("variable", tmp_path / "variable.yaml")
    assert (flags.settings.server.name, flags.source) == ("flag", tmp_path / "flag.yaml")


@pytest.mark.parametrize("name", ["tfo-mcp.yaml", "configs/tfo-mcp.yaml"])
def test_a_file_in_the_working_directory_is_named_and_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    found = tmp_path / name
    found.parent.mkdir(exist_ok=True)
    found.write_text(named("intruder"))

    loaded = search(tmp_path)

    assert loaded.settings.server.name == Settings().server.name
    (warning,) = loaded.warnings
    assert warning == (
        f"{found} is not read, because a working directory may be anybody's: name it with --config, "
        f"or move it to {tmp_path}/config/tfo-mcp/config.yaml"
    )


def test_the_file_in_the_home_folder_is_read_where_the_platform_looks_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "Library"))
    old = tmp_path / ".config" / "tfo-mcp" / "config.yaml"
    new = tmp_path / "Library" / "tfo-mcp" / "config.yaml"
    for file in (old, new):
        file.parent.mkdir(parents=True)
    old.write_text(named("old"))

    alone = search(tmp_path)
    new.write_text(named("new"))
    beside = search(tmp_path)

    assert (alone.settings.server.name, alone.source, alone.warnings) == ("old", old, ())
    assert (beside.settings.server.name, beside.source) == ("new", new)
    assert beside.warnings == (f"{old} is not read, because {new} comes before it",)


def test_one_file_at_both_places_is_read_without_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "Library"))
    old = tmp_path / ".config" / "tfo-mcp" / "config.yaml"
    old.parent.mkdir(parents=True)
    old.write_text(named("one"))
    (tmp_path / "Library").symlink_to(tmp_path / ".config")

    loaded = search(tmp_path)

    assert (loaded.settings.server.name, loaded.warnings) == ("one", ())


def test_a_root_that_is_no_folder_is_refused_and_one_that_is_missing_is_warned_of(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "file").touch()

    assert refusal(tmp_path, "tools:\n  roots: [file]\n") == (
        f"line 2: {tmp_path}/etc/file in tools.roots is not a folder"
    )
    assert load(tmp_path, "tools: {roots: [missing, /]}").warnings == (
        f"tools.roots names folders that are not there: {tmp_path}/etc/missing",
    )


def test_a_file_in_the_working_directory_that_is_named_is_read(tmp_path: Path) -> None:
    (tmp_path / "tfo-mcp.yaml").write_text(named("mine"))

    loaded = search(tmp_path, Path("tfo-mcp.yaml"))

    assert loaded.settings.server.name == "mine"
    assert not loaded.warnings


def test_a_named_file_that_is_missing_is_an_error(tmp_path: Path) -> None:
    missing = tmp_path / "missing.yaml"

    with pytest.raises(ConfigurationError, match=f"^--config: there is no file {missing}$"):
        search(tmp_path, Path("missing.yaml"))
    with pytest.raises(ConfigurationError, match=f"^TELEMETRYFLOW_MCP_CONFIG: there is no file {missing}$"):
        search(tmp_path, TELEMETRYFLOW_MCP_CONFIG="missing.yaml")


def test_a_folder_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=f"^{tmp_path} cannot be read: Is a directory$"):
        search(tmp_path, tmp_path)


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "claude:\n  # api_key: x\n", "\ufefftools: {}\n"])
def test_a_file_that_says_nothing_changes_nothing(tmp_path: Path, text: str) -> None:
    assert load(tmp_path, text).settings == Settings()


def test_an_empty_value_in_the_file_is_not_set(tmp_path: Path) -> None:
    settings = load(tmp_path, "claude: {base_url: '', max_tokens: null}").settings

    assert (settings.claude.base_url, settings.claude.max_tokens) == (None, 4096)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("server:\n  name: a\n  nme: b\n", "line 3: unknown setting 'nme' in section 'server'; did you mean 'name'?"),
        ("server:\n  zzz: b\n", "line 2: unknown setting 'zzz' in section 'server'"),
        ("\nclaud: {max_tokens: 5}\n", "line 2: unknown section 'claud'; did you mean 'claude'?"),
        ("zzz: 5\n", "line 1: unknown section 'zzz'"),
        ("mcp: 5\n", "line 1: 'mcp' must be a mapping of settings"),
        ("- mcp\n", "line 1: the file must be a mapping of sections to settings"),
        ("mcp:\n  ? [a]\n  : 1\n", "line 2: a name must be text"),
        ("mcp: {}\ntools: {}\nmcp: {}\n", "line 3: 'mcp' is here a second time, the first is in line 1"),
        (
            "mcp:\n  max_depth: 20\n  max_depth: 30\n",
            "line 3: 'max_depth' is here a second time, the first is in line 2",
        ),
        ("claude:\n  max_tokens: many\n", "line 2: claude.max_tokens must be a whole number from 1 to 1000000"),
        ("claude:\n  max_tokens: 1.5\n", "line 2: claude.max_tokens must be a whole number from 1 to 1000000"),
        ("mcp:\n  tool_timeout: .inf\n", "line 2: mcp.tool_timeout must be a number above 0 and at most 86400"),
        ("tools:\n  execute_command: git\n", "line 2: 'tools.execute_command' must be a mapping of settings"),
        (
            "tools:\n  execute_command:\n    alow: [git]\n",
            "line 3: unknown setting 'alow' in section 'tools.execute_command'; did you mean 'allow'?",
        ),
        (
            "tools:\n  execute_command:\n    sandbox: off\n",
            "line 3: tools.execute_command.sandbox must be one of bubblewrap, none",
        ),
        (
            "tools:\n  execute_command:\n    allow: [git, bin/x]\n",
            "line 3: tools.execute_command.allow must be a list of programs, each a name or an absolute path",
        ),
        ("tools:\n  execute_command: &a {allow: *a}\n", "line 2: found unconstructable recursive node"),
        ("tools.threads: 5\n", "line 1: 'tools.threads' is no name, because it has a dot"),
        ("tools:\n  roots: /srv\n", "line 2: tools.roots must be a list of paths"),
        ("tools:\n  roots: [/srv, 5]\n", "line 2: tools.roots must be a list of paths"),
        ("telemetry:\n  headers: {a: 5}\n", "line 2: telemetry.headers must be a mapping of names to text"),
        ("claude:\n  api_key: 5\n", "line 2: claude.api_key must be text; put it in quotes"),
        ("telemetry:\n  environment: 2026-11-25\n", "line 2: telemetry.environment must be text; put it in quotes"),
        ("claude:\n  api_key: [x]\n", "line 2: claude.api_key must be text"),
        ("claude:\n  timeout: .nan\n", "line 2: claude.timeout must be a number above 0 and at most 3600"),
        ("claude:\n  max_tokens: 1" + 5000 * "0" + "\n", "line 2: the value of 'max_tokens' cannot be read"),
        ("claude:\n  max_tokens: !!timestamp x\n", "line 2: the value of 'max_tokens' cannot be read"),
        ("claude:\n  max_tokens: !!bool perhaps\n", "line 2: the value of 'max_tokens' cannot be read"),
        ('server:\n  name: "\\uD800"\n', "line 2: server.name is not Unicode text"),
        ('storage:\n  folder: "a\\0b"\n', "line 2: storage.folder must be a path"),
        ("tools:\n  roots: ['']\n", "line 2: tools.roots must be a list of paths"),
        (
            "claude:\n  Max-Tokens: 5\n",
            "line 2: unknown setting 'Max-Tokens' in section 'claude'; did you mean 'max_tokens'?",
        ),
        (
            "claude:\n  tool_timeout: 5\n",
            "line 2: unknown setting 'tool_timeout' in section 'claude'; did you mean 'mcp.tool_timeout'?",
        ),
        (
            "claude:\n  max_tokns:\n",
            "line 2: unknown setting 'max_tokns' in section 'claude'; did you mean 'max_tokens'?",
        ),
        ("claud:\n", "line 1: unknown section 'claud'; did you mean 'claude'?"),
        ("[]\n", "line 1: the file must be a mapping of sections to settings"),
        ("mcp: {max_depth: 20, max_depth: 20}\n", "line 1: 'max_depth' is here a second time, the first is in line 1"),
        ("server: {<<: {name: x}}\n", "line 1: unknown setting '<<' in section 'server'"),
        ("server: {}\n---\nmcp: {}\n", "line 2: expected a single document in the stream, but found another document"),
        ("mcp: &one {}\ntools: &one {}\n", "line 2: found duplicate anchor; first occurrence, second occurrence"),
        ("claude:\n  api_key: &a [*a]\n", "line 2: found unconstructable recursive node"),
        ("telemetry:\n  environment: 2026-13-45\n", "line 2: the value of 'environment' cannot be read"),
        ("server: {name: !x 1}\n", "line 1: could not determine a constructor for the tag"),
        ("server: [\n", "line 2: expected the node content, but found '<stream end>'"),
        ("server:\n\tname: x\n", "line 2: found character '\\t' that cannot start any token"),
    ],
)
def test_what_is_wrong_in_the_file_is_told_with_its_line(tmp_path: Path, text: str, sentence: str) -> None:
    assert refusal(tmp_path, text) == sentence


@pytest.mark.parametrize(
    "text",
    [
        "claude: {api_key: KEY: x}",
        "claude:\n  api_key: KEY: x\n",
        "claude: {api_key: *KEY}",
        "claude: {api_key: !KEY x}",
        "claude: {api_key: !KEY!x x}",
        "claude: {api_key: &KEY x, base_url: &KEY x}",
        "claude: {api_key: [KEY]}",
        "claude: {api_key: {KEY: KEY}}",
        "claude: {api_key: !!int KEY}",
        "claude: {api_key: !!binary KEYé}",
        "claude: {api_key: 'KEY}",
        "claude: {KEY: x}",
        "claude: {KEY: }",
        "claude: {x.KEY: x}",
        "claude: KEY",
        "claude: {max_tokens: KEY}",
        "claude: {default_model: [KEY]}",
        "claude: {base_url: KEY}",
        "telemetry: {headers: KEY}",
        "telemetry: {headers: [KEY]}",
        "telemetry: {headers: {authorization: [KEY]}}",
        "telemetry: {headers: {KEY: 5}}",
        "telemetry: {endpoint: 'https://KEY@host'}",
        "telemetry: {api_key_secret: {KEY: x}}",
        "logging: {level: KEY}",
        "server: {transport: KEY}",
        "tools: {execute_command: {allow: KEY}}",
        "KEY: x",
        "KEY: 1\nKEY: 2",
        "KEY",
    ],
)
@pytest.mark.parametrize("key", ["sk-ant-api03-Zm9vYmFy", "tfs_Zm9vYmFy", "Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4Zm9v"])
def test_an_error_quotes_no_key_wherever_it_stands(tmp_path: Path, text: str, key: str) -> None:
    sentence = refusal(tmp_path, text.replace("KEY", key))

    assert key not in sentence
    assert "line" in sentence


def test_many_aliases_cost_nothing(tmp_path: Path) -> None:
    levels = "\n".join(f"  l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 40))
    bomb = f"cache:\n  l0: &l0 [x]\n{levels}\n"

    assert load(tmp_path, bomb).settings == Settings()
    assert refusal(tmp_path, f"{bomb}tools:\n  roots: *l39\n") == "line 43: tools.roots must be a list of paths"


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"server:\n  name: \xff\n", ", line 2: the file is not UTF-8 text"),
        (b"server: {name: \x07}", " has a character that YAML does not allow"),
        (b"[" * 100_000, " is nested too deep"),
        (b"#" * (1024 * 1024 + 1), " is larger than 1048576 bytes"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, data: bytes, sentence: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_bytes(data)

    with pytest.raises(ConfigurationError) as refused:
        search(tmp_path, file)

    assert str(refused.value) == f"{file}{sentence}"


def test_without_a_file_no_yaml_is_imported(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from tfo_mcp.infrastructure import config, logs\n"
        "loaded = config.load_settings(config_path=None, flags={}, environ={}, cwd=pathlib.Path.cwd())\n"
        "logs.configure_logging(loaded.settings)\n"
        "print(sorted({'yaml', 'structlog', 'difflib', 'pydantic'} & set(sys.modules)))"
    )

    answer = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"XDG_CONFIG_HOME": str(tmp_path), "HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert answer.stdout == "[]\n"
