"""From `serve` to the first answer nothing is imported that it does not need (DESIGN decision 10)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import pytest

from support.server import DEADLINE, HANDSHAKE, environment

# An import is told of before it happens, on the pipe that the answer goes to: their order there is what happened.
CHILD = """
import os, sys

def tell(event, arguments):
    if event != "import":
        return
    frame, importer = sys._getframe(1), "?"
    while frame is not None:
        name = frame.f_globals.get("__name__") or ""
        if name.partition(".")[0] == "tfo_mcp":
            importer = name
            break
        frame = frame.f_back
    os.write(2, f"import {arguments[0]} by {importer}\\n".encode())

sys.addaudithook(tell)
from tfo_mcp.cli import main
main(["serve"])
"""

NEVER_BEFORE: Sequence[str] = (
    "alembic",
    "anthropic",
    "grpc",
    "jsonschema_rs",
    "opentelemetry.exporter",
    "opentelemetry.proto",
    "opentelemetry.sdk",
    "re2",
    "sqlalchemy",
    "structlog",
    "yaml",
)
"""Comes later, behind the first answer or when it is needed."""

OURS: Mapping[str, str] = {
    "click": "the command line",
    "msgspec": "settings and JSON",
    "typing_extensions": "msgspec's",
    "platformdirs": "where configuration and state are",
    "uvloop": "the event loop",
}
"""What we import ourselves, the SDK aside, and what for."""

OF_THE_SDK = {
    "annotated_types", "anyio", "attr", "attrs", "certifi", "cffi", "click", "cryptography", "h11", "httpcore2",
    "httpx2", "idna", "jsonschema", "jwt", "mcp", "mcp_types", "multipart", "opentelemetry", "pycparser", "pydantic",
    "pydantic_core", "pydantic_settings", "python_multipart", "sniffio", "sse_starlette", "starlette",
    "typing_inspection", "uvicorn",
}  # fmt: skip
"""What the SDK's own import brings, until there is a door in front of it."""

DOOR = "tfo_mcp.presentation.sdk_door"
ONLY_BY_THE_DOOR = {"httpx2", "mcp", "mcp_types", "pydantic", "sse_starlette", "starlette", "uvicorn"}


@dataclass(frozen=True)
class Import:
    """A module that was asked for, and the nearest module of ours that asked."""

    module: str
    importer: str

    @property
    def package(self) -> str:
        return self.module.partition(".")[0]


def imports_before_the_answer(output: str) -> Iterator[Import]:
    for line in output.splitlines():
        if line.startswith('{"jsonrpc"'):
            assert json.loads(line)["result"]["protocolVersion"] == HANDSHAKE["protocolVersion"]
            return
        if line.startswith("import "):
            _, module, _, importer = line.split(" ")
            yield Import(module, importer)
    raise AssertionError(output)


@pytest.fixture(scope="module")
def imports(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Import]:
    """Of one real process, in order."""
    folder = tmp_path_factory.mktemp("imports")
    hello = json.dumps({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": HANDSHAKE})
    child = subprocess.run(
        [sys.executable, "-c", CHILD],
        input=hello + "\n",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment(folder),
        cwd=folder,
        timeout=DEADLINE,
        text=True,
        check=True,
    )
    return list(imports_before_the_answer(child.stdout))


def test_everything_heavy_is_imported_later(imports: Sequence[Import]) -> None:
    early = [at for at in imports if any(f"{at.module}.".startswith(f"{name}.") for name in NEVER_BEFORE)]
    assert early == []


def test_only_what_stands_in_the_list_is_imported(imports: Sequence[Import]) -> None:
    """Packages that are not installed were only asked for, by those that can do without them."""
    unknown = {
        at
        for at in imports
        if at.package not in sys.stdlib_module_names
        and not at.package.startswith("_")
        and at.package != "tfo_mcp"
        and at.package not in (OF_THE_SDK if at.importer == DOOR else OURS)
        and find_spec(at.package) is not None
    }
    assert unknown == set()


def test_only_the_door_imports_the_sdk_and_what_comes_with_it(imports: Sequence[Import]) -> None:
    importers = {(at.package, at.importer) for at in imports if at.package in ONLY_BY_THE_DOOR}
    assert ("mcp", DOOR) in importers
    assert {importer for _, importer in importers} == {DOOR}
