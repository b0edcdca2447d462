"""What one source says about one setting, before anything is checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_LIKE_A_NAME = re.compile(r"(?!.*(?:sk-|tf[ks]_))[\w.<-]{1,32}", re.ASCII)


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
"""Setting (`section.key`) to what was given for it. An empty value is one not set: it stands here for a name only
that means nothing, so that the name can be refused."""


def quoted(name: str) -> str:
    """A name from outside, fit for a sentence: one that may be a key in the wrong place is not repeated."""
    return repr(name) if _LIKE_A_NAME.fullmatch(name) else "a name that is not repeated here"
