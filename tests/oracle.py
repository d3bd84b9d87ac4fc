"""What the analytics must answer, computed in pandas from their definitions; nothing of `graph` is imported.

Prices are a long table (symbol, date, open, high, low, close, volume), memberships another (type, name, symbol, weight).
Dates are days of pandas; what is not known is NaN. An answer is a dictionary, as a query for every field gives it.
"""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

WINDOWS = {"DAY": 1, "WEEK": 5, "MONTH": 21, "QUARTER": 63, "HALF_YEAR": 126, "YEAR": 252, "YTD": None}
METRICS = ("DAY", "OPEN", "WEEK", "MONTH", "QUARTER", "HALF_YEAR", "YEAR", "EMA10", "EMA20", "SMA50", "SMA200")
EARLIER = 5
"""Sessions back, of the rank that a rank is compared with."""
RATIO, MOMENTUM = 63, 21
ALIKE = 1e-12

Found = dict[str, Any]


# ---- closes


class View(NamedTuple):
    """Closes and opens up to the session that is measured: a row for each session, a column for each symbol."""

    closes: pd.DataFrame
    opens: pd.DataFrame

    def back(self, sessions: int) -> "View":
        """What was seen so many sessions before."""
        end = max(len(self.closes) - sessions, 0)
        return View(self.closes.iloc[:end], self.opens.iloc[:end])


def known(values: pd.Series) -> pd.Series:
    """Prices that are some: above 0 and finite."""
    return np.isfinite(values) & (values > 0)


def sessions_of(closes: pd.DataFrame) -> list[pd.Timestamp]:
    """The days on which half of those have a close that have one on the session before, or twice as many others."""
    sessions: list[pd.Timestamp] = []
    before: set[str] = set()
    for day, rows in closes.groupby("date"):
        here = set(rows.symbol)
        if 2 * len(before & here) >= len(before) or len(here) >= 2 * len(before):
            sessions.append(day)
            before = here
    return sessions


def view(prices: pd.DataFrame, as_of: str | None = None) -> View:
    """What is seen on a day: closes from the first of January of the year before last on.

    A day beyond the year of the last session sees what that year does.
    """
    good = prices[known(prices.close)]
    year = good.date.max().year
    year = sessions_of(good[good.date.dt.year >= year - 2])[-1].year
    last = good.date.max() if as_of is None else pd.Timestamp(as_of)
    closes = good[(good.date.dt.year >= min(year, last.year) - 2) & (good.date <= last)]
    opens = closes[known(closes.open)].pivot_table(index="date", columns="symbol", values="open", aggfunc="last")
    wide = closes.pivot_table(index="date", columns="symbol", values="close", aggfunc="last")
    sessions = pd.DatetimeIndex(sessions_of(closes))
    return View(wide.reindex(index=sessions), opens.reindex(index=sessions, columns=wide.columns))


def day_of(day: pd.Timestamp | None) -> str | None:
    """As an answer writes it."""
    return None if day is None else day.date().isoformat()


# ---- groups and keys


class Members(NamedTuple):
    """The symbols that a key stands for, and their weights where it is one group that has some."""

    symbols: list[str]
    weights: pd.Series | None
    of: tuple[str, str] | None
    """The type and name of the group whose weights they are."""


def groups_of(memberships: pd.DataFrame, by: str) -> dict[str, pd.Series]:
    """The groups of a type: weights by symbol."""
    rows = memberships[memberships.type == by]
    return {name: of_one.set_index("symbol").weight.sort_index() for name, of_one in rows.groupby("name")}


def named(memberships: pd.DataFrame, part: str) -> pd.DataFrame:
    """The memberships of the group that a part of a key names."""
    kind, _, name = part.rpartition("/")
    rows = memberships[memberships.name.str.lower() == name.strip('"').lower()]
    return rows[rows.type == kind.upper()] if kind else rows


def members_of(memberships: pd.DataFrame, key: str) -> Members:
    """Read a key: `&` and `-` from the left, and before `:`."""
    parts = re.findall(r'[()&:-]|(?:\w+/)?"[^"]*"|[^()&:\s"-]+', key)

    def factor() -> set[str]:
        part = parts.pop(0)
        if part != "(":
            return set(named(memberships, part).symbol)
        inner = union()
        assert parts.pop(0) == ")"
        return inner

    def term() -> set[str]:
        found = factor()
        while parts and parts[0] in "&-":
            found = found & factor() if parts.pop(0) == "&" else found - factor()
        return found

    def union() -> set[str]:
        found = term()
        while parts and parts[0] == ":":
            parts.pop(0)
            found = found | term()
        return found

    alone = parts[0] if len(parts) == 1 else None
    symbols = sorted(union())
    if alone is not None:
        rows = named(memberships, alone)
        if rows.weight.notna().any():
            first = rows.iloc[0]
            return Members(symbols, rows.set_index("symbol").weight.sort_index(), (first["type"], first["name"]))
    return Members(symbols, None, None)


# ---- changes


def begins(sessions: pd.DatetimeIndex, window: str | int) -> tuple[int, int | None]:
    """How many sessions a window is, and the place of the one it begins from."""
    last = len(sessions) - 1
    if window == "YTD":
        before = int((sessions.year < sessions[last].year).sum())
        return len(sessions) - before, before - 1 if before else None
    count = window if isinstance(window, int) else WINDOWS[window]
    assert count is not None
    return count, last - count if last >= count else None


def changes(view: View, window: str | int, symbols: Sequence[str]) -> pd.Series:
    """The change of each symbol that has both closes."""
    sessions = view.closes.index
    if not len(sessions) or (place := begins(sessions, window)[1]) is None:
        return pd.Series(dtype=float)
    then, now = view.closes.iloc[place].reindex(symbols), view.closes.iloc[-1].reindex(symbols)
    return (now / then - 1).dropna()


def weighted(change: pd.Series, weights: pd.Series | None) -> tuple[pd.Series, float | None]:
    """The share of each that has a change and a weight, and the mean: sum(w r) / sum(w)."""
    weight = pd.Series(1.0, change.index) if weights is None else weights.reindex(change.index).dropna()
    total = float(weight.sum())
    if not len(weight) or total == 0:
        return pd.Series(dtype=float), None
    return weight / total, float((weight * change[weight.index]).sum() / total)


def share(part: int, whole: int) -> float:
    """Of nothing it is 0."""
    return part / whole if whole else 0.0


def ranks(values: Sequence[float | None]) -> list[int | None]:
    """The greatest first; equal ones share the better place, whatever was rounded on the way to them."""
    return [None if v is None else 1 + sum(o is not None and o - v > ALIKE for o in values) for v in values]


def window_change(view: View, window: str, symbols: Sequence[str], weights: pd.Series | None) -> Found:
    """How far a set has come."""
    sessions = view.closes.index
    # before the first session there is no year of which a YTD could be
    count, place = begins(sessions, window) if len(sessions) else (WINDOWS[window] or 0, None)
    change = changes(view, window, symbols)
    up, down = int((change > 0).sum()), int((change < 0).sum())
    return {
        "window": window,
        "sessions": count,
        "from": None if place is None else day_of(sessions[place]),
        "to": day_of(sessions[-1]) if len(sessions) else None,
        "change": weighted(change, weights)[1],
        "weighting": "EQUAL" if weights is None else "WEIGHT",
        "members": len(symbols),
        "priced": len(change),
        "coverage": share(len(change), len(symbols)),
        "advancers": up,
        "decliners": down,
        "unchanged": len(change) - up - down,
        "upShare": share(up, len(change)),
        "rank": None,
        "rankChange": None,
    }


# ---- performance and prices


def performance(seen: View, members: Members, windows: Iterable[str], weighting: str = "WEIGHT") -> list[Found]:
    """Of a group or a universe."""
    weights = members.weights if weighting == "WEIGHT" else None
    return [window_change(seen, window, members.symbols, weights) for window in windows]


def stock_performance(seen: View, symbol: str, windows: Iterable[str]) -> list[Found]:
    """Of a stock."""
    kept = ("window", "sessions", "from", "to", "change")
    changed = performance(seen, Members([symbol], None, None), windows)
    return [{key: each[key] for key in kept} for each in changed]


def bars_of_stock(prices: pd.DataFrame, symbol: str, since: str | None = None, to: str | None = None) -> list[Found]:
    """What it cost: the bars that have a close; what is not above zero is no price."""
    rows = prices[(prices.symbol == symbol) & known(prices.close)].sort_values("date")
    if to is not None:
        rows = rows[rows.date <= pd.Timestamp(to)]
    rows = rows.tail(252) if since is None else rows[rows.date >= pd.Timestamp(since)]
    names = ("open", "high", "low", "close", "volume")
    return [
        {"date": day_of(day)}
        | {
            name: float(value) if np.isfinite(value) and (value > 0 or name == "volume") else None
            for name, value in zip(names, values, strict=True)
        }
        for day, *values in rows[["date", *names]].itertuples(index=False, name=None)
    ]


# ---- rotation


def daily(view: View, symbols: Sequence[str], weights: pd.Series | None) -> pd.Series:
    """The mean change of each session against the one before."""
    closes = view.closes.reindex(columns=symbols)
    change = closes / closes.shift() - 1
    weight = pd.Series(1.0, symbols) if weights is None else weights.reindex(symbols)
    held = change.notna().mul(weight.notna(), axis=1)
    total = held.mul(weight.fillna(0), axis=1).sum(axis=1)
    moved = change.mul(weight, axis=1).sum(axis=1)
    return (moved / total.where(total != 0)).where(held.any(axis=1))


def points(row: pd.Series, benchmark: pd.Series, last: int) -> dict[pd.Timestamp, tuple[float, float]]:
    """Ratio and momentum of those of the last sessions that have all the changes that they take."""
    taken = RATIO + MOMENTUM - 2
    mine, theirs = row.to_numpy(), benchmark.to_numpy()
    found = {}
    for end in range(max(taken, len(row) - last), len(row)):
        one, other = mine[end - taken + 1 : end + 1], theirs[end - taken + 1 : end + 1]
        if np.isnan(one).any() or np.isnan(other).any():
            continue
        strength = np.concatenate([[1.0], np.cumprod(1 + one) / np.cumprod(1 + other)])
        averages = np.lib.stride_tricks.sliding_window_view(strength, RATIO).mean(axis=1)
        ratio = 100 * strength[RATIO - 1 :] / averages
        found[row.index[end]] = (float(ratio[-1]), float(100 * ratio[-1] / ratio.mean()))
    return found


QUADRANTS = {(True, True): "LEADING", (True, False): "WEAKENING", (False, False): "LAGGING", (False, True): "IMPROVING"}


def relative(view: View, row: Members, benchmark: Members, tail: int) -> Found | None:
    """How strong a row is against the benchmark."""
    if not len(view.closes):
        return None
    view = View(view.closes.iloc[-RATIO - MOMENTUM - tail :], view.opens)
    found = points(daily(view, row.symbols, row.weights), daily(view, benchmark.symbols, benchmark.weights), tail)
    sessions = view.closes.index
    if sessions[-1] not in found:
        return None
    ratio, momentum = found[sessions[-1]]
    return {
        "ratio": ratio,
        "momentum": momentum,
        "quadrant": QUADRANTS[ratio >= 100, momentum >= 100],
        "tail": [
            {"date": day_of(day), "ratio": found[day][0], "momentum": found[day][1]}
            for day in sessions[-tail:]
            if day in found
        ],
    }


def contributions(view: View, row: Members, window: str, top: int) -> tuple[list[Found], list[Found]]:
    """Those that raised a row's change most, and those that lowered it."""
    change = changes(view, window, row.symbols)
    weight, _ = weighted(change, row.weights)
    parts = [
        {
            "stock": {"symbol": symbol},
            "weight": float(weight[symbol]),
            "change": float(change[symbol]),
            "contribution": float(weight[symbol] * change[symbol]),
        }
        for symbol in sorted(weight.index)
    ]
    up = sorted((p for p in parts if p["contribution"] > 0), key=lambda p: -p["contribution"])
    down = sorted((p for p in parts if p["contribution"] < 0), key=lambda p: p["contribution"])
    return up[:top], down[:top]


def sector_rotation(
    seen: View,
    memberships: pd.DataFrame,
    universe: str,
    by: str,
    windows: Sequence[str],
    *,
    weighting: str = "WEIGHT",
    benchmark: str | None = None,
    tail: int = 21,
    top: int = 5,
    over: str = "DAY",
) -> Found:
    """Which groups of a universe lead."""
    earlier = seen.back(EARLIER)
    whole = members_of(memberships, universe)
    against = members_of(memberships, universe if benchmark is None else benchmark)
    if weighting == "EQUAL":
        against = against._replace(weights=None, of=None)
    rows: list[Found] = []
    then: list[list[float | None]] = []
    grouped: set[str] = set()
    for name, in_group in sorted(groups_of(memberships, by).items()):
        symbols = sorted(set(in_group.index) & set(whole.symbols))
        if not symbols:
            continue
        grouped |= set(symbols)
        row = Members(symbols, None, None)
        if weighting == "WEIGHT" and whole.weights is not None:
            row = Members(symbols, whole.weights.reindex(symbols), whole.of)
        elif weighting == "WEIGHT" and in_group.notna().any():
            row = Members(symbols, in_group.reindex(symbols), (by, name))
        measured = {w: window_change(seen, w, symbols, row.weights) for w in {*windows, "WEEK", "MONTH"}}
        week, month = measured["WEEK"]["change"], measured["MONTH"]["change"]
        up, down = contributions(seen, row, over, top)
        rows.append(
            {
                "group": {"type": by, "name": name},
                "members": len(symbols),
                "priced": (priced := with_close(seen, symbols)),
                "coverage": share(priced, len(symbols)),
                "weighting": "EQUAL" if row.weights is None else "WEIGHT",
                "weightsOf": None if row.of is None else {"type": row.of[0], "name": row.of[1]},
                "windows": [measured[window] for window in windows],
                "weekAgainstMonth": week is not None and month is not None and week * month < 0,
                "relative": relative(seen, row, against, tail),
                "contributors": up,
                "detractors": down,
            }
        )
        then.append([weighted(changes(earlier, window, symbols), row.weights)[1] for window in windows])
    for place in range(len(windows)):
        now = ranks([row["windows"][place]["change"] for row in rows])
        before = ranks([changed[place] for changed in then])
        for row, rank, old in zip(rows, now, before, strict=True):
            row["windows"][place]["rank"] = rank
            row["windows"][place]["rankChange"] = None if rank is None or old is None else old - rank
    rows.sort(key=lambda row: (row["windows"][0]["rank"] or math.inf, row["group"]["name"]))
    priced = with_close(seen, whole.symbols)
    return {
        "asOf": day_of(seen.closes.index[-1]) if len(seen.closes) else None,
        "universe": {"key": universe, "size": len(whole.symbols)},
        "members": len(whole.symbols),
        "priced": priced,
        "coverage": share(priced, len(whole.symbols)),
        "ungrouped": len(set(whole.symbols) - grouped),
        "rows": rows if len(seen.closes) else [],
    }


def with_close(view: View, symbols: Sequence[str]) -> int:
    """How many have a close of the session that is measured."""
    return int(view.closes.iloc[-1].reindex(symbols).notna().sum()) if len(view.closes) else 0


# ---- bars


def exact(value: float) -> Fraction:
    """The decimal number that is written so."""
    return Fraction(repr(float(value)))


def threshold_bars(
    seen: View,
    memberships: pd.DataFrame,
    universe: str,
    *,
    threshold: float = 0.05,
    sessions: int = 1,
    kind: str = "DIVERGING",
) -> Found:
    """How many rose and fell, and how far."""
    days = seen.closes.index
    symbols = members_of(memberships, universe).symbols
    place = begins(days, sessions)[1] if len(days) else None
    change: list[Fraction] = []
    if place is not None:
        both = seen.closes.reindex(columns=symbols).iloc[[place, -1]].dropna(axis=1)
        change = [exact(both[symbol].iloc[1]) / exact(both[symbol].iloc[0]) - 1 for symbol in both]
    limit = exact(threshold)
    bins: dict[str, Callable[[Fraction], bool]] = {
        "SIGNIFICANT_DECLINE": lambda x: x < -limit,
        "MINOR_DECLINE": lambda x: -limit <= x < 0,
        "MINOR_ADVANCE": lambda x: 0 <= x < limit,
        "SIGNIFICANT_ADVANCE": lambda x: x >= limit,
    }
    if kind == "SIMPLE":
        bins = {"DECLINE": lambda x: x < 0, "ADVANCE": lambda x: x >= 0}
    counts = {name: sum(map(within, change)) for name, within in bins.items()}
    return {
        "asOf": day_of(days[-1]) if len(days) else None,
        "from": None if place is None else day_of(days[place]),
        "members": len(symbols),
        "priced": len(change),
        "coverage": share(len(change), len(symbols)),
        "segments": [
            {"bin": name, "count": count, "share": share(count, len(change))} for name, count in counts.items()
        ]
        if len(days)
        else [],
    }


# ---- breadth


def average(closes: pd.Series, metric: str) -> float:
    """The average of a stock's closes, one for each session, that its last is compared with; NaN where there is none."""
    kind, count = metric[:3], int(metric[3:])
    if kind == "SMA":
        return float(closes.iloc[-count:].mean(skipna=False)) if len(closes) >= count else np.nan
    there = closes.dropna().tolist()
    if len(there) < count:
        return np.nan
    found = sum(there[:count]) / count
    for close in there[count:]:
        found += (close - found) * 2 / (count + 1)
    return found


def breadth(seen: View, memberships: pd.DataFrame, universe: str) -> Found:
    """How many members take part."""
    symbols = members_of(memberships, universe).symbols
    closes = seen.closes.reindex(columns=symbols)
    metrics: list[Found] = []
    for metric in METRICS if len(closes) else ():
        if metric in WINDOWS:
            change = changes(seen, metric, symbols)
        elif metric == "OPEN":
            change = (closes.iloc[-1] / seen.opens.reindex(columns=symbols).iloc[-1] - 1).dropna()
        else:
            average_of = closes.apply(average, args=(metric,)) if symbols else pd.Series(dtype=float)
            change = (closes.iloc[-1] / average_of - 1).dropna()
        unchanged = int((change.abs() <= ALIKE).sum())
        up = int((change > ALIKE).sum())
        metrics.append(
            {
                "metric": metric,
                "measured": len(change),
                "coverage": share(len(change), len(symbols)),
                "up": up,
                "down": len(change) - up - unchanged,
                "unchanged": unchanged,
                "upShare": share(up, len(change)),
            }
        )
    priced = with_close(seen, symbols)
    return {
        "asOf": day_of(closes.index[-1]) if len(closes) else None,
        "members": len(symbols),
        "priced": priced,
        "coverage": share(priced, len(symbols)),
        "metrics": metrics,
    }
