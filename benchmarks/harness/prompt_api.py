"""A Messages API that answers at once, as a process of its own: it tells when the first byte of a request came."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager

from harness.peer import FOLDER


class PromptApi:
    """The running process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        if process.stdin is None or process.stdout is None:
            raise ValueError("the API is asked over pipes")
        self._stdin = process.stdin
        self._stdout = process.stdout
        self._endpoint = self._stdout.readline().strip()

    @property
    def environment(self) -> Mapping[str, str]:
        """Of a server that is to ask it."""
        return {"ANTHROPIC_BASE_URL": self._endpoint, "ANTHROPIC_API_KEY": "none"}

    def arrivals(self) -> Sequence[float]:
        """When each message came since the last question, in seconds on `time.perf_counter`'s clock."""
        self._stdin.write("arrivals\n")
        self._stdin.flush()
        return json.loads(self._stdout.readline())


@contextmanager
def answering() -> Generator[PromptApi]:
    """One, for as long as the block runs."""
    program = FOLDER / "programs" / "prompt_api.py"
    with subprocess.Popen(
        [sys.executable, str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield PromptApi(process)
        finally:
            process.kill()
