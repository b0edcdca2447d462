"""The stand-in's clock: it runs by itself, and can be put forward so that nothing has to be waited for."""

import time


class Clock:
    """Monotonic seconds."""

    def __init__(self) -> None:
        """Begin now."""
        self._ahead = 0.0

    def now(self) -> float:
        """Give the present time."""
        return time.monotonic() + self._ahead

    def advance(self, seconds: float) -> None:
        """Put the clock forward."""
        self._ahead += seconds
