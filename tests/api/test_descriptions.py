"""Descriptions come from docstrings: of resolvers, attributes, bases, enum values and arguments."""

from conftest import SCHEMA
from graphql import build_schema

TYPES = build_schema(SCHEMA.as_str()).type_map


def test_a_field_has_the_docstring_of_its_resolver_or_attribute_also_if_it_is_inherited() -> None:
    assert TYPES["Stock"].fields["sector"].description == "The SECTOR group that holds the stock; null if none does."
    assert TYPES["Segment"].fields["bin"].description == "The bin."
    assert TYPES["Stock"].fields["id"].description == TYPES["Node"].fields["id"].description
    assert TYPES["GroupConnection"].fields["nodes"].description == "The items of the page."


def test_an_enum_value_has_the_docstring_below_it() -> None:
    assert TYPES["Window"].values["WEEK"].description == "5 sessions."
    assert TYPES["GroupType"].values["CUSTOM"].description == "A group of any other kind."


def test_an_argument_has_its_line_of_the_docstring_and_null_is_no_default() -> None:
    arguments = TYPES["Stock"].fields["prices"].args
    assert arguments["from"].description == "The first date; without it, the last 252 days with a price are returned."
    assert "first: Int = 20" in SCHEMA.as_str()
    assert "= null" not in SCHEMA.as_str()
