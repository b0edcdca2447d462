"""What one source says about one setting, before anything is checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Given:
    """A value and where it comes from.

    Attributes:
        origin: for sentences: a file and its line, a variable, or the command line.
        base: the folder that a relative path in the value starts from.
    """

    value: object
    origin: str
    base: Path


Sayings = Mapping[str, Given]
"""Setting (`section.key`) to what was given for it. Nothing stands here for an empty value: that is one not set."""
