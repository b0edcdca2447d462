"""The setting `claude.prices`: what a million tokens of a model cost."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

import msgspec
from msgspec import Meta

from tfo_mcp.domain.price import Price, Prices

_Amount = Annotated[float, Meta(ge=0, le=1_000_000)]


class PriceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    input: _Amount
    output: _Amount
    cache_read: _Amount
    cache_write: _Amount


ModelPrices = Annotated[
    dict[Annotated[str, Meta(min_length=1, max_length=200)], PriceSettings],
    Meta(
        title="a mapping of models to their input, output, cache_read and cache_write, each a number from 0 to 1000000",
        description="Prices of a million tokens, by model or by a model's name without its date. Only what stands "
        "here has a cost. In the variable, JSON.",
    ),
]


def prices_of(settings: dict[str, PriceSettings], currency: str) -> Prices:
    """The prices with the digits that they were written with."""
    return Prices({model: _price(price) for model, price in settings.items()}, currency)


def _price(settings: PriceSettings) -> Price:
    """A float is told in the fewest digits that mean it: those that were written, up to 15."""
    return Price(**{name: Decimal(repr(value)) for name, value in msgspec.structs.asdict(settings).items()})
