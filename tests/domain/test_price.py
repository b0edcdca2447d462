from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfo_mcp.domain.message import Usage
from tfo_mcp.domain.price import Cost, Price, Prices

PRICE = Price(input=Decimal(3), output=Decimal(15), cache_read=Decimal("0.3"), cache_write=Decimal("3.75"))
PRICES = Prices({"claude-sonnet-5-5": PRICE, "claude-haiku-4-5": PRICE, "claude-opus-4": PRICE}, "EUR")

amounts = st.decimals(min_value=0, max_value=1_000_000, allow_nan=False, allow_infinity=False, places=9)
counts = st.integers(min_value=0, max_value=10**15)


def test_each_kind_of_token_has_its_own_price() -> None:
    assert PRICE.of(Usage(1_000_000)) == 3
    assert PRICE.of(Usage(0, 1_000_000)) == 15
    assert PRICE.of(Usage(0, 0, 1_000_000)) == Decimal("0.3")
    assert PRICE.of(Usage(0, 0, 0, 1_000_000)) == Decimal("3.75")
    assert PRICE.of(Usage(1, 1, 1, 1)) == Decimal("0.00002205")
    assert PRICE.of(Usage()) == 0


@given(st.builds(Usage, counts, counts, counts, counts), st.tuples(amounts, amounts, amounts, amounts))
def test_nothing_is_rounded(usage: Usage, four: tuple[Decimal, Decimal, Decimal, Decimal]) -> None:
    price = Price(input=four[0], output=four[1], cache_read=four[2], cache_write=four[3])
    tokens = (usage.input_tokens, usage.output_tokens, usage.cache_read_tokens, usage.cache_write_tokens)
    exact = sum((count * Fraction(amount) for count, amount in zip(tokens, four, strict=True)), Fraction(0)) / 1_000_000
    assert Fraction(price.of(usage)) == exact


@given(st.lists(st.builds(Usage, counts, counts, counts, counts), max_size=20))
def test_the_sum_costs_what_its_parts_cost(parts: list[Usage]) -> None:
    total = sum((Fraction(PRICE.of(part)) for part in parts), Fraction(0))
    assert Fraction(PRICE.of(sum(parts, Usage()))) == total


@pytest.mark.parametrize(
    "model", ["claude-sonnet-5-5", "claude-haiku-4-5", "claude-haiku-4-5-20251001", "claude-haiku-4-5@20251001"]
)
def test_a_model_has_the_price_of_its_id_or_of_its_name_without_the_date(model: str) -> None:
    assert PRICES.cost(model, Usage(1_000_000)) == Cost(Decimal(3), "EUR")


@pytest.mark.parametrize(
    "model",
    [
        "claude-opus-4-8",
        "claude-opus-4-20250514-v1:0",
        "claude-haiku-4-5-latest",
        "claude-sonnet-5",
        "",
        "-20251001",
        "claude-haiku-4-5-20251001\n",
    ],
)
def test_a_model_without_a_price_has_no_cost(model: str) -> None:
    assert PRICES.cost(model, Usage(1_000_000)) is None


def test_the_id_comes_before_the_name() -> None:
    dated = Price(input=Decimal(1), output=Decimal(0), cache_read=Decimal(0), cache_write=Decimal(0))
    prices = Prices({"claude-haiku-4-5": PRICE, "claude-haiku-4-5-20251001": dated}, "EUR")
    assert prices.cost("claude-haiku-4-5-20251001", Usage(1_000_000)) == Cost(Decimal(1), "EUR")


def test_what_is_free_costs_nothing_which_is_not_unknown() -> None:
    nothing = Decimal(0)
    free = Price(input=nothing, output=nothing, cache_read=nothing, cache_write=nothing)
    assert Prices({"own": free}, "USD").cost("own", Usage(5, 5)) == Cost(Decimal(0), "USD")


@pytest.mark.parametrize(
    ("amount", "written"),
    [
        ("0.00002205", "0.00002205"),
        ("3E-9", "0.000000003"),
        ("1.500000", "1.5"),
        ("2.000000", "2"),
        ("0E-7", "0"),
        ("1E+3", "1000"),
        ("1200", "1200"),
    ],
)
def test_an_amount_is_written_without_an_exponent_and_without_zeros_that_say_nothing(amount: str, written: str) -> None:
    assert Cost(Decimal(amount), "USD").to_json() == {"amount": written, "currency": "USD"}
