"""What tokens cost, in decimal numbers: nothing is rounded, and nothing has a price that nobody gave it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import Final

from tfo_mcp.domain.message import Usage

_MILLION: Final = 6
"""Decimal places."""

_SNAPSHOT: Final = re.compile(r"[-@]\d{8}\Z", re.ASCII)
"""What the id of a dated model has behind the name that means its newest date."""

_EXACT: Final = Context(prec=100, traps=[Inexact, InvalidOperation])


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """Of a million tokens each; `input` is what the cache had no part in."""

    input: Decimal
    output: Decimal
    cache_read: Decimal
    cache_write: Decimal

    def of(self, usage: Usage) -> Decimal:
        """What `usage` costs, with as many decimal places as it takes."""
        counted = (
            (usage.input_tokens, self.input),
            (usage.output_tokens, self.output),
            (usage.cache_read_tokens, self.cache_read),
            (usage.cache_write_tokens, self.cache_write),
        )
        total = Decimal(0)
        for tokens, price in counted:
            total = _EXACT.fma(Decimal(tokens), price, total)
        return _EXACT.scaleb(total, -_MILLION)


@dataclass(frozen=True, slots=True)
class Cost:
    """An amount of a currency."""

    amount: Decimal
    currency: str

    def to_json(self) -> dict[str, str]:
        """The amount is text, without an exponent: a number could not hold it exactly."""
        written = f"{self.amount:f}"
        if "." in written:
            written = written.rstrip("0").rstrip(".")
        return {"amount": written, "currency": self.currency}


class Prices:
    """The prices that are known, by model.

    Args:
        prices: the names are ids of models, or such an id without its date.
        currency: of all of them.
    """

    def __init__(self, prices: Mapping[str, Price], currency: str) -> None:
        self._prices = prices
        self._currency = currency

    def cost(self, model: str, usage: Usage) -> Cost | None:
        """What `usage` of `model` costs; None where no price is known."""
        price = self._prices.get(model) or self._prices.get(_SNAPSHOT.sub("", model))
        return None if price is None else Cost(price.of(usage), self._currency)
