"""Files that a verb writes for its user."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def new_file(path: Path, *, replace: bool) -> Generator[BinaryIO]:
    """A file that only its owner may read, to be written in the block; there at its end, or not at all.

    An old one stays whole until then, or for good where it is not to be replaced.

    Raises:
        FileExistsError: it is there, and is not to be replaced; or it is none that could be.
        OSError: the system refuses.
    """
    target = Path(os.path.realpath(path))
    if os.path.lexists(path) and not (replace and target.is_file()):
        raise FileExistsError
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, draft = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
        if replace:
            Path(draft).replace(target)
        else:
            os.link(draft, target)  # in place of a rename, because it replaces nothing
            Path(draft).unlink()
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
