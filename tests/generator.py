"""Queries generated from the schema, most of which find several rows in the small market."""

import json
import random
from datetime import UTC, datetime
from typing import Any, NamedTuple

from conftest import SCHEMA
from graphql import (
    GraphQLEnumType,
    GraphQLInterfaceType,
    GraphQLUnionType,
    Undefined,
    get_named_type,
    is_leaf_type,
)
from strawberry.schema.schema_converter import GraphQLCoreConverter

TODAY = str(datetime.now(UTC).date())
# what arguments may be, by name, so that most queries find several rows
VALUES: dict[str, list[Any]] = {
    "name": [*["BIG", "TECH", "mixed", "big", "top3"] * 6, "nothing yet", "nobody"],
    "symbol": [*["AAPL", "nvda", "MSFT", "AAPL", "XOM", "JPM"] * 2, "ZZZ", "NOPE"],
    "symbols": [["AAPL", "NOPE", "XOM"], ["MSFT", "JPM"], ["NVDA", "AAPL", "MSFT"], []],
    "key": ["BIG:TECH", "BIG&TECH", "BIG:MIXED", "SECTOR/energy:TECH", *["BIG", "top3:MIXED"] * 10, "NOPE", "BIG:"],
    "universe": ["BIG", "TECH:MIXED", "top3", "BIG:TECH", '"nothing yet"'],
    "groups": [["BIG", "TECH"], ["BIG", "chips", "MIXED"], ["MIXED", "BIG", "TECH"]],
    "text": ["a", "big", "apple", "e", "n"],
    "first": [*[3, 5, 20, 100, 2, 4, 50] * 20, 1, -1],
    "type": ["ETF", "SECTOR", "THEME"],
    "by": ["SECTOR", "ETF"],
    "windows": [["DAY", "WEEK"], ["YTD"]],
    "since": [TODAY],
    "asOf": [TODAY],
    "membersAsOf": [TODAY],
    "environment": [*["DEFAULT"] * 12, "TEST"],
    "top": [2],
    "minMembers": [1, 2],
    "maxMembers": [5],
    "from": ["2024-01-02"],
}
RARELY = {"environment", "asOf", "membersAsOf", "minMembers", "maxMembers", "from"}
SKIPPED_ROOTS, SKIPPED_ARGUMENTS = {"status", "node"}, {"after", "search", "to"}
# what is there once in a field of the root, and what the small market has none of: changes, and 83 sessions
ALONE = {"Query", "Status", "MemoStatus", "ListenerStatus", "Universe", "SectorRotation", "ThresholdBars", "Breadth"}
ALONE |= {"GroupConnection", "StockConnection", "MemberChange", "RelativeRotation", "RelativePoint"}


def is_plain(field: Any) -> bool:
    """Whether a field is cheap for many rows, or leads to a list."""
    made = field.extensions.get(GraphQLCoreConverter.DEFINITION_BACKREF)
    resolver = made and made.base_resolver
    return not resolver or hasattr(resolver.wrapped_func, "batch") or "Connection" in str(field.type)


class Query(NamedTuple):
    """A query with its variables."""

    text: str
    variables: dict[str, Any]


class Maker:
    """Makes a query of the schema's fields."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.schema = SCHEMA._schema  # noqa: SLF001 - Strawberry has no public name for it
        self.variables: dict[str, Any] = {}
        self.declared: list[str] = []
        # most queries select what is cheap, and little else
        self.others = rng.choice([0.1, 0.1, 0.55])

    def query(self) -> Query:
        root = self.schema.query_type
        roots = [*(name for name in root.fields if name not in SKIPPED_ROOTS), "search"]
        asked = []
        for number in range(self.rng.choice([2, 3, 3, 4])):
            name = self.rng.choice(roots)
            field = root.fields[name]
            asked.append(f"r{number}: {name}{self.arguments(field)} {self.selection(get_named_type(field.type), 4)}")
        signature = f"({', '.join(self.declared)})" if self.declared else ""
        return Query(f"query Q{signature} {{ {' '.join(asked)} }}", self.variables)

    def variable(self, kind: object, value: Any) -> str:
        name = f"$v{len(self.declared)}"
        self.declared.append(f"{name}: {kind}")
        self.variables[name[1:]] = value
        return name

    def written(self, value: Any, kind: Any) -> str:
        if isinstance(value, list):
            return f"[{', '.join(self.written(each, kind) for each in value)}]"
        return value if isinstance(kind, GraphQLEnumType) else json.dumps(value)

    def arguments(self, field: Any) -> str:
        given = []
        for name, argument in field.args.items():
            must = str(argument.type).endswith("!") and argument.default_value is Undefined
            kind = get_named_type(argument.type)
            values = VALUES.get(name) or ([*kind.values] if isinstance(kind, GraphQLEnumType) else [])
            if (
                name in SKIPPED_ARGUMENTS
                or not values
                or not (must or self.rng.random() < (0.03 if name in RARELY else 0.3))
            ):
                continue
            value = self.rng.choice(values)
            if "[" in str(argument.type) and not isinstance(value, list):
                value = [value]
            as_variable = self.rng.random() < 0.3
            given.append(f"{name}: {self.variable(argument.type, value) if as_variable else self.written(value, kind)}")
        return f"({', '.join(given)})" if given else ""

    def directive(self) -> str:
        if self.rng.random() < 0.75:
            return ""
        name, says = self.rng.choice([("skip", True), ("include", True), ("skip", False), ("include", False)])
        as_variable = self.rng.random() < 0.5
        return f" @{name}(if: {self.variable('Boolean!', says) if as_variable else str(says).lower()})"

    def selection(self, kind: Any, depth: int, prefix: str = "") -> str:
        if isinstance(kind, GraphQLUnionType | GraphQLInterfaceType):
            parts = [
                # of one name in two types only one may admit null
                f"... on {each.name} {self.selection(each, depth, each.name)}"
                for each in self.schema.get_possible_types(kind)
            ]
            return "{ __typename " + " ".join(parts) + " }"
        rng, fields = self.rng, []
        for name, field in kind.fields.items():
            below = get_named_type(field.type)
            if (not is_leaf_type(below) and depth <= 0) or rng.random() > (0.55 if is_plain(field) else self.others):
                continue
            alias = f"{prefix}{name}{rng.randrange(10)}: " if prefix or rng.random() < 0.15 else ""
            more = "" if is_leaf_type(below) else " " + self.selection(below, depth - 1)
            fields.append(f"{alias}{name}{self.arguments(field)}{self.directive()}{more}")
        if rng.random() < 0.2 and fields:
            split = rng.randrange(len(fields))
            fields[split:] = [f"... on {kind.name} {{ {' '.join(fields[split:])} }}"]
        return "{ " + " ".join([*fields, "__typename"] if not fields or rng.random() < 0.3 else fields) + " }"
