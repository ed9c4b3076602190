"""Titles a shopper can read, made from a till's abbreviations."""

import pytest

from training.data.titles import readable, size_of, title_of, words_of


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("APPLE SAUCE", "Apple Sauce"),
        ("FRZN SS PREMIUM ENTREES/DNRS/N", "Frozen Single Serve Premium Entrees/Dinners"),
        ("SFT DRNK SNGL SRV BTL CARB (EX", "Soft Drink Single Serve Bottle Carbonated"),
        ("BEERALEMALT LIQUORS", "Beer, Ale & Malt Liquors"),
        ("PUDDING&GELATIN CUPS/CANS", "Pudding & Gelatin Cups/Cans"),
        ("PAPER TOWELS & HOLDERS", "Paper Towels & Holders"),
        ("SOFT DRINKS 12/18&15PK CAN CAR", "Soft Drinks 12/18 & 15 Pack Can"),
        ("FLUID MILK WHITE ONLY", "White Milk"),
    ],
)
def test_abbreviations_are_written_out(raw: str, expected: str) -> None:
    assert readable(raw) == expected


def test_a_title_names_the_item_and_its_size() -> None:
    assert title_of("APPLE SAUCE", "FRUIT", "GROCERY", "50 OZ") == "Apple Sauce, 50 oz"


def test_a_type_that_says_nothing_alone_takes_its_category_along() -> None:
    assert title_of("PREMIUM", "PASTA SAUCE", "GROCERY", None) == "Pasta Sauce, Premium"


def test_the_next_wider_level_stands_in_for_a_missing_type() -> None:
    assert title_of(None, "HOSIERY/SOCKS", "DRUG GM", None) == "Hosiery/Socks"
    assert title_of(None, None, "FLORAL", None) == "Floral"


@pytest.mark.parametrize(
    ("raw", "expected"),
    [(".5 OZ", "0.5 oz"), ("1 GA", "1 gal"), ("(600) 4 LB", "4 lb"), ("2 L", "2 L")],
)
def test_sizes(raw: str, expected: str) -> None:
    assert size_of(raw) == expected


def test_the_crate_that_a_shop_receives_is_not_a_size() -> None:
    assert title_of("BANANAS", "TROPICAL FRUIT", "PRODUCE", "40 LB") == "Bananas"
    assert title_of("PEPPERS", "PEPPERS", "PRODUCE", "48-54 CT") == "Peppers"
    assert title_of("POTATOES", "POTATOES", "PRODUCE", "5 LB") == "Potatoes, 5 lb"
    assert title_of("LITTER", "CAT", "GROCERY", "40 LB") == "Litter, 40 lb"


def test_words_are_distinct_lower_case_and_in_order() -> None:
    assert words_of("Potato Chips", "POTATO CHIPS, 10.5 oz", None) == "potato chips 10.5 oz"
