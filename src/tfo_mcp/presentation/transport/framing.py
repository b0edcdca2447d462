"""Lines out of a stream of bytes, never holding more than one line's limit."""

from __future__ import annotations

from collections.abc import Iterator


class LineFramer:
    """Splits input into lines.

    Args:
        limit: bytes of a line that are accepted (`mcp.max_message_size`).
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._partial = bytearray()
        self._skipping = False

    def feed(self, data: bytes) -> Iterator[bytes | bytearray | None]:
        """The complete lines that `data` ends, without newline; None for one over the limit.

        An oversized line is told of as soon as it is known to be one; the rest of it is skipped.
        """
        *lines, rest = data.split(b"\n")
        for line in lines:
            yield from self._complete(line)
        if self._skipping:
            return
        self._partial += rest
        if len(self._partial) > self._limit:
            self._partial = bytearray()
            self._skipping = True
            yield None

    def end(self) -> Iterator[bytes | bytearray | None]:
        """What is left at the end of input: a last line without a newline counts."""
        yield from self._complete(b"")

    def _complete(self, line: bytes) -> Iterator[bytes | bytearray | None]:
        if self._skipping:
            self._skipping = False
            return
        whole: bytes | bytearray = line
        if self._partial:
            whole = self._partial + line
            self._partial = bytearray()
        if len(whole) > self._limit:
            yield None
        elif not whole.isspace() and whole:
            yield whole
