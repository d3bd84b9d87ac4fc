"""The schema: every part of it is described, and what a client may not read is masked."""

import logging
import re

import orjson
import pytest
from conftest import SCHEMA, Live
from graphql import GraphQLInterfaceType, GraphQLObjectType, build_schema, print_schema
from graphql.utilities import find_schema_changes
from schema_changes import unannounced

from graph.execution.operation import Operation


def test_every_type_field_and_argument_is_described() -> None:
    schema = build_schema(SCHEMA.as_str())
    bare = []
    for name, kind in schema.type_map.items():
        if name.startswith("__") or name in ("String", "Int", "Float", "Boolean", "ID"):
            continue
        if not kind.description:
            bare.append(name)
        if isinstance(kind, GraphQLObjectType | GraphQLInterfaceType):
            for field_name, field in kind.fields.items():
                if not field.description:
                    bare.append(f"{name}.{field_name}")
                bare += [
                    f"{name}.{field_name}({given})"
                    for given, argument in field.args.items()
                    if not argument.description
                ]
    assert bare == []


CONTRACT = """
type Query { group(name: String!, type: GroupType): Group
  groups(type: [GroupType!], search: String, minMembers: Int, maxMembers: Int, orderBy: GroupOrder = NAME_ASC, first: Int, after: String): GroupConnection
  stock(symbol: String!): Stock  stocks(symbols: [String!]!): [Stock]  universe(key: String!): Universe
  search(text: String!, first: Int = 20): [SearchHit!]  overlap(groups: [String!]!): [GroupOverlap!]
  sectorRotation(universe: String!, by: GroupType = SECTOR, windows: [Window!] = [DAY, WEEK, MONTH, QUARTER], asOf: Date, membersAsOf: Date,
                 weighting: Weighting = WEIGHT, benchmark: String): SectorRotation
  thresholdBars(universe: String!, threshold: Float = 0.05, sessions: Int = 1, kind: BarKind = DIVERGING, asOf: Date, membersAsOf: Date): ThresholdBars
  breadth(universe: String!, asOf: Date, membersAsOf: Date): Breadth
  node(id: ID!): Node  status: Status! }
type Group { id: ID! name: String! type: GroupType! description: String environment: Environment! metadata: JSON liquidityFilter: JSON
  createdAt: DateTime updatedAt: DateTime lastUpdate: DateTime memberCount: Int! totalWeight: Float symbols: [String!]!
  members(first: Int, after: String, orderBy: MemberOrder = WEIGHT_DESC): MembershipConnection! exposure(by: GroupType = SECTOR): [Exposure!] }
type Stock { id: ID! symbol: String! name: String industry: String sector: Group groups(type: [GroupType!]): [Group!]! memberships(type: [GroupType!]): [Membership!]! }
type Membership { symbol: String! weight: Float rank: Int! addedAt: DateTime updatedAt: DateTime metadata: JSON group: Group! stock: Stock! }
type MembershipConnection { totalCount: Int! nodes: [Membership!]! edges: [MembershipEdge!]! pageInfo: PageInfo! }
type GroupConnection { totalCount: Int! nodes: [Group!]! edges: [GroupEdge!]! pageInfo: PageInfo! }
type StockConnection { totalCount: Int! nodes: [Stock!]! edges: [StockEdge!]! pageInfo: PageInfo! }
type MembershipEdge { cursor: String! node: Membership! }
type PageInfo { hasNextPage: Boolean! hasPreviousPage: Boolean! startCursor: String endCursor: String }
type Status { generation: String! databaseTime: DateTime! listener: ListenerStatus! universes: MemoStatus! answers: MemoStatus! version: String! }
type ListenerStatus { mode: ListenerMode! confirmedAt: DateTime reconnects: Int! }
type MemoStatus { entries: Int! bytes: Int hits: Int! misses: Int! evictions: Int! }
type Universe { key: String! size: Int! symbols: [String!]! groups: [Group!]! stocks(first: Int, after: String): StockConnection! }
type Exposure { group: Group weight: Float count: Int! }
type SectorRotation { asOf: Date note: String universe: Universe! members: Int! priced: Int! rows: [RotationRow!]! }
type RotationRow { group: Group! members: Int! priced: Int! weighting: Weighting! windows: [WindowChange!]! relative: RelativeRotation
  weekAgainstMonth: Boolean! contributors(top: Int = 5, window: Window = DAY): [Contribution!]! detractors(top: Int = 5, window: Window = DAY): [Contribution!]! }
type WindowChange { window: Window! sessions: Int! from: Date to: Date change: Float priced: Int! advancers: Int! decliners: Int!
  unchanged: Int! upShare: Float rank: Int rankChange: Int }
type RelativeRotation { ratio: Float! momentum: Float! quadrant: Quadrant! }
type RelativePoint { date: Date! ratio: Float! momentum: Float! }
type Contribution { stock: Stock! weight: Float! change: Float! contribution: Float! }
type ThresholdBars { asOf: Date members: Int! priced: Int! segments: [Segment!]! }
type Segment { bin: Bin! count: Int! share: Float! }
type Breadth { asOf: Date members: Int! metrics: [BreadthMetric!]! }
type BreadthMetric { metric: Metric! measured: Int! up: Int! down: Int! unchanged: Int! upShare: Float }
type GroupOverlap { a: Group! b: Group! sharedCount: Int! sharedWeight: Float jaccard: Float! }
"""


def test_the_contract_is_kept_to_the_letter() -> None:
    """Every field of API.md that is built, its type, arguments and defaults as written there."""
    whole = print_schema(build_schema(SCHEMA.as_str()))
    types = dict(
        re.findall(
            r"^(?:type|interface) (\w+)[^{]*\{\n(.*?)^\}",
            re.sub(r'""".*?"""', "", whole, flags=re.DOTALL),
            re.DOTALL | re.MULTILINE,
        )
    )
    missing = []
    for name, body in re.findall(r"type (\w+) \{(.*?)\}", CONTRACT, re.DOTALL):
        built = {re.match(r"\w+", field)[0]: field for field in _fields(types[name])}
        for field in _fields(body):
            field_name, arguments, kind = _parts(field)
            _, given, built_kind = _parts(built.get(field_name, f"{field_name}: nothing"))
            if kind != built_kind or not set(arguments) <= set(given):
                missing.append((name, field, built.get(field_name)))
    assert missing == []


def _fields(body: str) -> list[str]:
    return [" ".join(field.split()) for field in re.findall(r"\w+(?:\([^)]*\))?: [\[\]!\w]+", body)]


def _parts(field: str) -> tuple[str, list[str], str]:
    name, arguments, kind = re.fullmatch(r"(\w+)(?:\((.*)\))?: (\S+)", field).groups()
    return name, re.findall(r"\w+: [\[\]!\w]+(?: = \w+)?", arguments or ""), kind


async def test_what_was_not_foreseen_is_masked_and_logged_under_its_id(
    live: Live, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fall(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a secret of the inside")

    monkeypatch.setattr(live.runtime.database, "fetch", fall)
    with caplog.at_level(logging.ERROR):
        answer = await live.ask('{ stock(symbol: "AAPL") { id } }')
    (error,) = answer["errors"]
    number = error["extensions"]["id"]
    assert error["extensions"] == {"code": "INTERNAL", "id": number}
    assert error["message"] == f"Something went wrong here; the server's log has it under {number}."
    assert number in caplog.text
    assert "a secret of the inside" in caplog.text


async def test_a_clients_mistake_is_told_to_it_and_not_to_the_log(live: Live, caplog: pytest.LogCaptureFixture) -> None:
    answer = await live.ask('{ universe(key: "NOPE") { size } stock { id } }')
    assert [error["extensions"]["code"] for error in answer["errors"]] == ["GRAPHQL_VALIDATION_FAILED"]
    await live.ask('{ universe(key: "NOPE") { size } }')
    assert caplog.records == []


def test_only_what_was_deprecated_may_break_clients() -> None:
    before = build_schema(
        """type Query { a(x: Int, y: Int @deprecated): Int! b: Int @deprecated d(i: I): E t: T @deprecated }
        enum E { A B @deprecated } input I { x: Int y: Int @deprecated } type T { x: Int @deprecated }"""
    )
    after = build_schema("type Query { a: Int d(i: I, j: Int): E c: Int } enum E { A C } input I { x: Int z: Int! }")
    found = unannounced(before, find_schema_changes(before, after))
    assert [change.description for change in found] == [
        "Argument Query.a(x:) was removed.",
        "Field Query.a changed type from Int! to Int.",
        "A required field I.z was added.",
    ]


async def test_the_cost_is_told_to_who_asks(live: Live) -> None:
    operation = Operation(live.runtime)
    query = '{ group(name: "TECH") { members { nodes { symbol weight } } } }'
    result = await SCHEMA.execute(query, context_value=operation, operation_extensions={"cost": True})
    assert result.extensions == {
        "cost": {"objects": 5, "maxObjects": 100_000, "bytes": operation.answer_bytes, "statements": 2}
    }
    written = len(orjson.dumps(result.data))
    assert 0.8 * written < operation.answer_bytes < 1.5 * written
    assert (await SCHEMA.execute(query, context_value=Operation(live.runtime))).extensions is None
