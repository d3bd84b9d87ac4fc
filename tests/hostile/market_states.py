"""A market whose every state is known by a few numbers, the questions about it, and the ledger of the states there were.

The contents of a group, the names of the stocks and their prices are functions of a version. A state is the version of
each, so that the answer to a question can be told for every state, and whole.
"""

import random
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple

PROMISE = 1.0
"""Seconds after a commit from which on a request sees it (docs/freshness.md)."""

GROUPS = ("G0", "G1", "G2", "G3", "G4", "G5")
FLEETING = "G5"
"""The group that is not there in every third of its versions."""
NAMES, PRICES = "names", "prices"
PARTS = (*GROUPS, NAMES, PRICES)
SYMBOLS = [f"S{number:02}" for number in range(24)]
SESSIONS = [date(2026, 1, 5) + timedelta(number) for number in range(5)]
BINS = ("SIGNIFICANT_DECLINE", "MINOR_DECLINE", "MINOR_ADVANCE", "SIGNIFICANT_ADVANCE")

Versions = dict[str, int]
Members = dict[str, Decimal | None]


@lru_cache(4096)
def members(group: str, version: int) -> Members | None:
    """The weights of a group's members, heaviest first; None if the group is not there in this version."""
    if group == FLEETING and version % 3 == 2:
        return None
    rng = random.Random(f"{group} {version}")
    symbols = rng.sample(SYMBOLS, rng.randint(4, 16))
    weights = sorted(rng.sample(range(1, 600), len(symbols)), reverse=True)
    held: Members = dict(zip(symbols, (Decimal(weight).scaleb(-4) for weight in weights), strict=True))
    if version % 4 == 1:
        held[symbols[-1]] = None
    return held


def stock_name(symbol: str, version: int) -> str:
    return f"{symbol} of {version}"


@lru_cache(4096)
def closes(symbol: str, version: int) -> list[float]:
    """The closes of a stock, one for each session."""
    rng = random.Random(f"{symbol} {version}")
    return [float(rng.randint(50, 150)) for _ in SESSIONS]


def _number(weight: Decimal | None) -> float | None:
    return None if weight is None else float(weight)


class UnknownGroupExpected(Exception):
    """The answer is the error UNKNOWN_GROUP."""


class Question(NamedTuple):
    """A query, the parts of the market that its answer depends on, and the data of its answer in a state."""

    text: str
    parts: tuple[str, ...]
    expected: Callable[[Versions], dict[str, Any]]

    def asked_today(self) -> str:
        return self.text.replace("TODAY", str(datetime.now(UTC).date()))


def _held(state: Versions, group: str) -> Members:
    held = members(group, state[group])
    if held is None:
        raise UnknownGroupExpected
    return held


def universe(first: str, sign: str, second: str, less: str) -> Question:
    def expected(state: Versions) -> dict[str, Any]:
        a, b, c = (set(_held(state, group)) for group in (first, second, less))
        symbols = sorted((a | b if sign == ":" else a & b) - c)
        return {"universe": {"size": len(symbols), "symbols": symbols}}

    return Question(
        f'{{universe(key:"({first}{sign}{second})-{less}"){{size symbols}}}}', (first, second, less), expected
    )


def universe_today(group: str) -> Question:
    def expected(state: Versions) -> dict[str, Any]:
        return {"universe": {"symbols": sorted(_held(state, group))}}

    return Question(f'{{universe(key:"{group}",asOf:"TODAY"){{symbols}}}}', (group,), expected)


def _totals(held: Members) -> dict[str, Any]:
    weights = [weight for weight in held.values() if weight is not None]
    return {"memberCount": len(held), "totalWeight": float(sum(weights))}


def group(name: str) -> Question:
    def expected(state: Versions) -> dict[str, Any]:
        held = members(name, state[name])
        if held is None:
            return {"group": None}
        nodes = [
            {
                "rank": rank,
                "weight": _number(weight),
                "stock": {"symbol": symbol, "name": stock_name(symbol, state[NAMES])},
            }
            for rank, (symbol, weight) in enumerate(held.items(), 1)
        ]
        return {"group": {**_totals(held), "members": {"nodes": nodes}}}

    text = f'{{group(name:"{name}"){{memberCount totalWeight members{{nodes{{rank weight stock{{symbol name}}}}}}}}}}'
    return Question(text, (name, NAMES), expected)


def stock(symbol: str) -> Question:
    def expected(state: Versions) -> dict[str, Any]:
        memberships = [
            (held[symbol], name) for name in GROUPS if (held := members(name, state[name])) and symbol in held
        ]
        memberships.sort(key=lambda each: (each[0] is None, -(each[0] or 0), each[1]))
        return {
            "stock": {
                "name": stock_name(symbol, state[NAMES]),
                "memberships": [{"weight": _number(weight), "group": {"name": name}} for weight, name in memberships],
            }
        }

    return Question(
        f'{{stock(symbol:"{symbol}"){{name memberships{{weight group{{name}}}}}}}}', (*GROUPS, NAMES), expected
    )


def all_groups() -> Question:
    def expected(state: Versions) -> dict[str, Any]:
        there = [(name, held) for name in GROUPS if (held := members(name, state[name])) is not None]
        nodes = [{"name": name, **_totals(held)} for name, held in there]
        return {"groups": {"totalCount": len(nodes), "nodes": nodes}}

    return Question("{groups{totalCount nodes{name memberCount totalWeight}}}", GROUPS, expected)


def prices(symbol: str) -> Question:
    def expected(state: Versions) -> dict[str, Any]:
        days = zip(SESSIONS, closes(symbol, state[PRICES]), strict=True)
        return {"stock": {"prices": [{"date": str(day), "close": close} for day, close in days]}}

    return Question(f'{{stock(symbol:"{symbol}"){{prices{{date close}}}}}}', (PRICES,), expected)


def threshold_bars(group: str) -> Question:
    def expected(state: Versions) -> dict[str, Any]:
        held = _held(state, group)
        counts: Counter[str] = Counter()
        for symbol in held:
            *_, before, last = closes(symbol, state[PRICES])
            change = last / before - 1
            counts[BINS[(change >= -0.0505) + (change >= 0) + (change >= 0.0505)]] += 1
        segments = [{"bin": each, "count": counts[each]} for each in BINS]
        return {"thresholdBars": {"members": len(held), "priced": len(held), "segments": segments}}

    text = f'{{thresholdBars(universe:"{group}",threshold:0.0505){{members priced segments{{bin count}}}}}}'
    return Question(text, (group, PRICES), expected)


def together(*questions: Question) -> Question:
    """Several questions in one query, whose answers must be of one state."""
    fields = [(f"r{number}", each) for number, each in enumerate(questions)]

    def expected(state: Versions) -> dict[str, Any]:
        return {alias: value for alias, each in fields for value in each.expected(state).values()}

    text = "{" + " ".join(f"{alias}:{each.text[1:-1]}" for alias, each in fields) + "}"
    return Question(text, tuple(sorted({part for each in questions for part in each.parts})), expected)


QUESTIONS = [
    universe("G0", ":", "G1", "G2"),
    universe("G3", "&", "G4", "G0"),
    universe("G1", ":", "G5", "G3"),
    universe_today("G0"),
    universe_today("G4"),
    *map(group, GROUPS),
    *map(stock, SYMBOLS[:6]),
    all_groups(),
    prices("S00"),
    prices("S07"),
    threshold_bars("G0"),
    threshold_bars("G3"),
    together(universe("G0", "&", "G1", "G2"), group("G0"), group("G1"), all_groups(), stock("S01")),
    together(group("G5"), universe_today("G2"), universe("G2", ":", "G3", "G4"), all_groups()),
    together(group("G0"), prices("S03"), threshold_bars("G0"), threshold_bars("G1"), stock("S03")),
    together(threshold_bars("G2"), universe("G2", ":", "G4", "G1"), prices("S04"), prices("S05")),
]


@dataclass
class Ledger:
    """Every state there was, with the moments between which the commit that made it happened.

    The commits are sent one after the other, so that the states have an order.
    """

    states: list[Versions] = field(default_factory=list)
    sent: list[float] = field(default_factory=list)
    """Moments just before the commits were sent."""
    known: list[float] = field(default_factory=list)
    """Moments by which they had happened."""
    oldest: float = 0.0
    """Seconds for which a state had been over when it was asked for and yet answered; at most PROMISE."""
    answers: dict[tuple[int, tuple[int, ...]], object] = field(default_factory=dict)

    def enter(self, state: Versions, sent: float, known: float) -> None:
        self.states.append(state)
        self.sent.append(sent)
        self.known.append(known)

    def fault(self, number: int, asked: float, answered: float, answer: object) -> str | None:
        """Hold an answer against the states; what is wrong with it, or None."""
        # the last state that was over for long, and all that came later
        first = max(0, bisect_left(self.known, asked - PROMISE) - 1)
        for place in range(len(self.states) - 1, first - 1, -1):
            if self.sent[place] <= answered and self._answer(number, place) == answer:
                self.oldest = max(self.oldest, self._age(place, asked))
                return None
        old = next((place for place in range(first - 1, -1, -1) if self._answer(number, place) == answer), None)
        return "of no state" if old is None else f"{self._age(old, asked):.2f} s old"

    def _age(self, place: int, asked: float) -> float:
        return asked - self.known[place + 1] if place + 1 < len(self.states) else 0.0

    def _answer(self, number: int, place: int) -> object:
        """The answer to a question in a state: data, or the code of an error."""
        question, state = QUESTIONS[number], self.states[place]
        key = number, tuple(state[part] for part in question.parts)
        if key not in self.answers:
            if len(self.answers) > 20_000:
                self.answers.clear()
            try:
                self.answers[key] = question.expected(state)
            except UnknownGroupExpected:
                self.answers[key] = "UNKNOWN_GROUP"
        return self.answers[key]
