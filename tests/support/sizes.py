"""Which cases of a parametrized test a newcomer waits for."""

from __future__ import annotations

from typing import Any

import pytest


def later(*values: object, id: str | None = None) -> Any:  # noqa: A002, ANN401  # as pytest's, which has no public type
    """A case that runs in `make test-ci` only."""
    return pytest.param(*values, marks=pytest.mark.ci, id=id)
