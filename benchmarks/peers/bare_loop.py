"""A bare loop over the Anthropic SDK: what a turn costs whoever writes the request, and nobody else."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import version

from harness.peer import FOLDER, Peer


def peers() -> Sequence[Peer]:
    """It. It records, stores and exports nothing."""
    return [
        Peer(
            name="bare loop",
            command=(sys.executable, str(FOLDER / "programs" / "bare_loop.py")),
            tools=frozenset({"claude_conversation"}),
            packages={"anthropic": version("anthropic")},
        )
    ]
