"""`GET /v1/models`: which models are listed, and the pages of the list."""

from collections.abc import Sequence
from typing import cast

from tfo_mcp.infrastructure.fake_claude.errors import Rejected
from tfo_mcp.infrastructure.fake_claude.models import MODELS, Lifecycle, Model, describe

DEFAULT_LIMIT = 20
MAX_LIMIT = 1000
LIFECYCLES = ("active", "deprecated", "retired")


def list_models(
    *,
    limit: str | None = None,
    after_id: str | None = None,
    before_id: str | None = None,
    lifecycle: Sequence[str] = (),
) -> dict[str, object]:
    """Give one page. Without `lifecycle`, retired models are left out; `before_id` gives the page that ends there.

    Raises `Rejected`.
    """
    if after_id is not None and before_id is not None:
        raise Rejected("before_id and after_id cannot both be given")
    listed = [model for model in MODELS if model.lifecycle in _asked(lifecycle)]
    size = _size(limit)
    if before_id is not None:
        end = _place(listed, "before_id", before_id)
        begin, more = max(0, end - size), end > size
    else:
        begin = 0 if after_id is None else _place(listed, "after_id", after_id) + 1
        end = begin + size
        more = end < len(listed)
    page = listed[begin:end]
    return {
        "data": [describe(model) for model in page],
        "has_more": more,
        "first_id": page[0].id if page else None,
        "last_id": page[-1].id if page else None,
    }


def _asked(lifecycle: Sequence[str]) -> Sequence[Lifecycle]:
    for stage in lifecycle:
        if stage not in LIFECYCLES:
            raise Rejected("lifecycle: Input should be 'active', 'deprecated' or 'retired'")
    return cast("Sequence[Lifecycle]", lifecycle) or ("active", "deprecated")


def _size(limit: str | None) -> int:
    if limit is None:
        return DEFAULT_LIMIT
    try:
        size = int(limit)
    except ValueError:
        raise Rejected("limit: Input should be a valid integer, unable to parse string as an integer") from None
    if size < 1:
        raise Rejected("limit: Input should be greater than or equal to 1")
    if size > MAX_LIMIT:
        raise Rejected(f"limit: Input should be less than or equal to {MAX_LIMIT}")
    return size


def _place(listed: Sequence[Model], name: str, wanted: str) -> int:
    for index, model in enumerate(listed):
        if model.id == wanted:
            return index
    raise Rejected(f"{name}: {wanted[:200]!r} is not in the list")
