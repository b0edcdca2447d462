"""One server of each revision, for all tests that neither end it nor leave a request in flight."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack

import pytest

from support.server import Server, serving


@pytest.fixture(scope="session")
def server_of(tmp_path_factory: pytest.TempPathFactory) -> Generator[Callable[[str], Server]]:
    """Gives the server that speaks a revision."""
    running: dict[str, Server] = {}
    with ExitStack() as servers:

        def of(revision: str) -> Server:
            if revision not in running:
                server = running[revision] = servers.enter_context(serving(tmp_path_factory.mktemp("server")))
                server.begin(revision)
            return running[revision]

        yield of
