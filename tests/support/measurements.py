"""Where the long figures are kept."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "docs" / "measurements"


def keep(name: str, began: float, figures: Mapping[str, Any]) -> None:
    """Write `docs/measurements/<name>.json`; `began` is by the monotonic clock."""
    how = {"date": datetime.now(UTC).date().isoformat(), "command": "make soak"}
    took = {"seconds": round(time.monotonic() - began, 1)}
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps({**how, **took, **figures}, indent=2) + "\n")
