"""Output of commands: the standard streams, progress bars, errors, and reports of a load."""

import io
import os
import select
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from decimal import Decimal
from typing import Any

import orjson
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress as ProgressBar

from graph.errors import StockgraphError
from graph.loading.files import Progress
from graph.loading.group_writer import GroupDiff, Listed
from graph.loading.holdings import GroupHoldings
from graph.loading.price_writer import PricesDiff

STDOUT, STDERR = 1, 2

err = Console(stderr=True, highlight=False, soft_wrap=True)
"""The console on standard error."""


class Stream(io.FileIO):
    """Standard stream that discards its output once a write has failed, so that the command runs to its end."""

    failure: OSError | None = None
    """The error of a write that failed, unless its reader had closed the pipe."""

    def write(self, data: Any, /) -> int:
        """Write all data, and wait if a non-blocking pipe is full."""
        try:
            while (written := super().write(data)) is None:
                select.select([], [self], [])
        except OSError as error:
            if not isinstance(error, BrokenPipeError):
                self.failure = error
            with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a device
                os.dup2(nowhere.fileno(), self.fileno())
            return len(data)
        else:
            return written


def open_streams() -> Stream:
    """Replace standard output and error by line-buffered streams that survive a failing write; return the first.

    A stream that the caller closed is opened on the null device, so that no other file gets its number.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        os.set_inheritable(number, True)  # noqa: FBT003 - the only way
    os.close(number)
    opened = [Stream(number, "w", closefd=False) for number in (STDOUT, STDERR)]
    for name, stream in zip(("stdout", "stderr"), opened, strict=True):
        encoding = getattr(getattr(sys, name), "encoding", "utf-8")
        buffer = io.BufferedWriter(stream)
        # characters that the terminal's encoding lacks are escaped
        setattr(sys, name, io.TextIOWrapper(buffer, encoding, errors="backslashreplace", line_buffering=True))
    return opened[0]


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Draw a progress bar if standard error is a terminal; gives the function that updates it."""
    current = ""

    def update(what: str, done: int, of: int | None) -> None:
        nonlocal current
        if what != current:
            # a new bar, since rich cannot change one with a total into one without
            for task in bar.task_ids:
                bar.remove_task(task)
            bar.add_task(escape(what), total=of)
            current = what
        bar.update(bar.task_ids[0], completed=done, total=of)

    with ProgressBar(
        console=err, transient=True, redirect_stdout=sys.stdout.isatty(), disable=not err.is_terminal
    ) as bar:
        yield update


class JsonReport:
    """Report of a load as one JSON document, printed group by group as they are written."""

    prices: PricesDiff | None = None

    def __init__(self) -> None:
        self._opening = '{"groups":['

    def add(self, diff: GroupDiff, group: GroupHoldings) -> None:
        """Print one group."""
        record = {each.name: getattr(diff, each.name) for each in fields(diff)}
        lists = {name: value for name, value in record.items() if isinstance(value, Listed)}
        record |= {name: listed.first for name, listed in lists.items()}
        record |= {"totals": {name: listed.total for name, listed in lists.items()}, "left_out": group.left_out}
        print(self._opening + orjson.dumps(record, default=float).decode())
        self._opening = ","

    def end(self, notes: Sequence[str], failures: Sequence[StockgraphError], **_: object) -> None:
        """Print the rest of the document."""
        ending = orjson.dumps({"prices": self.prices, "notes": notes, "errors": list(map(str, failures))}).decode()
        print(f"{self._opening.removesuffix(',')}],{ending.removeprefix('{')}")


class TextReport:
    """Report of a load as text, printed group by group as they are written."""

    prices: PricesDiff | None = None

    def __init__(self) -> None:
        self._count = self._changed = 0

    def add(self, diff: GroupDiff, group: GroupHoldings) -> None:
        """Print one group."""
        print(_group_text(diff, group))
        self._count += 1
        self._changed += diff.changed

    def end(self, notes: Sequence[str], _: object, *, dry_run: bool) -> None:
        """Print the notes and the totals of groups and prices."""
        for note in notes:
            err.print(f"note: {note}", markup=False)
        if self._count:
            would = "would change" if dry_run else "changed"
            written = "; a dry run, nothing was written" if dry_run else ""
            print(f"{self._count} groups read, {self._changed} {would}{written}")
        if self.prices and self.prices.files:
            print(_prices_text(self.prices, dry_run=dry_run))


def _group_text(diff: GroupDiff, group: GroupHoldings) -> str:
    lines = []
    if group.left_out:
        rows = [f"{row.ticker or row.name or '-'} ({row.reason})" for row in group.left_out]
        lines.append(
            f"{group.type} {group.name}: {len(rows):,} rows that are no members left out: {_first_few(rows, len(rows))}"
        )
    reweighted = [f"{each.symbol} {_weight(each.old)} -> {_weight(each.new)}" for each in diff.reweighted.first]
    changes = [
        f"{total:,} {what} ({_first_few(first, total)})"
        for what, total, first in (
            ("added", diff.added.total, diff.added.first),
            ("removed", diff.removed.total, diff.removed.first),
            ("reweighted", diff.reweighted.total, reweighted),
            ("weights too small for this database, now zero", diff.zeroed.total, diff.zeroed.first),
        )
        if total
    ]
    if diff.redescribed:
        changes.append("described anew")
    if diff.annotated:
        changes.append("annotated anew")
    changes.append(f"{diff.unchanged:,} unchanged")
    day = f" as of {diff.as_of}" if diff.as_of else ""
    lines.append(f"{diff.type} {diff.name}{day}: {'; '.join(changes)}")
    return "\n".join(lines)


def _prices_text(prices: PricesDiff, *, dry_run: bool) -> str:
    days = f", {prices.first} to {prices.last}" if prices.rows else ""
    counts = f"{prices.added:,} added, {prices.changed:,} changed, {prices.unchanged:,} unchanged"
    left_out = f", {prices.left_out:,} rows without a close left out" if prices.left_out else ""
    written = "; a dry run, nothing was written" if dry_run else ""
    symbols = f"{prices.symbols.total:,} symbols ({_first_few(prices.symbols.first, prices.symbols.total)})"
    return f"prices: {prices.rows:,} bars of {symbols}{days}: {counts}{left_out}{written}"


def _weight(weight: Decimal | None) -> str:
    return "unknown" if weight is None else str(weight)


def _first_few(texts: Sequence[str], total: int, most: int = 4) -> str:
    return ", ".join(texts[:most]) + (" ..." if total > most else "")


def print_error(reason: object) -> None:
    """Print an error to standard error."""
    err.print("[bold red]error:[/]", end=" ")
    err.print(str(reason), markup=False)
