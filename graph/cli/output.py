"""Output of commands: the standard streams, lines, the log, progress bars, errors, and reports of a load.

All that commands print and log passes `escaped`, so that no text of a file, a database or a client can move the cursor,
forge a line or reverse what is read.
"""

import io
import logging
import os
import re
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
from rich.text import Text

from graph.errors import StockgraphError
from graph.loading.files import Progress
from graph.loading.group_writer import GroupDiff, Listed
from graph.loading.holdings import GroupHoldings
from graph.loading.price_writer import PricesDiff

STDOUT, STDERR = 1, 2

# controls (C0, DEL, C1), ends of lines, marks of direction, bytes that are not UTF-8
_CONTROLS = re.compile("[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_log = logging.getLogger(__name__)
_err = Console(stderr=True, highlight=False, soft_wrap=True)


def escaped(text: str) -> str:
    """Return text on one line, what would control a terminal escaped as in JSON."""
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def print_lines(*lines: str) -> None:
    """Print lines to standard output."""
    print("\n".join(map(escaped, lines)))


def print_note(text: str, *, mark: str = "", style: str = "bold") -> None:
    """Print a line to standard error, after a mark in a style."""
    _err.print(Text.assemble((escaped(mark), style), escaped(text)))


def print_error(*reasons: object) -> None:
    """Print an error to standard error, with a line for each of its reasons."""
    for mark, reason in zip(("error:", *[" " * 6] * len(reasons)), reasons, strict=False):
        print_note(f" {reason}", mark=mark, style="bold red")


class LineFormatter(logging.Formatter):
    """A formatter that writes a record on one line, and a traceback below it, indented."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - as in logging
        """Return the line of a record."""
        return escaped(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - as in logging
        """Return the lines of a traceback."""
        return "\n".join(f"    {escaped(line)}" for line in super().formatException(ei).split("\n"))


def configure_logging() -> None:
    """Log to standard error, exceptions that nobody catches too."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter("%(levelname)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    sys.excepthook = lambda *failure: _log.critical("stockgraph failed.", exc_info=failure)


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
            bar.add_task(escape(escaped(what)), total=of)
            current = what
        bar.update(bar.task_ids[0], completed=done, total=of)

    with ProgressBar(
        console=_err, transient=True, redirect_stdout=sys.stdout.isatty(), disable=not _err.is_terminal
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
        print_lines(self._opening + orjson.dumps(record, default=float).decode())
        self._opening = ","

    def end(self, notes: Sequence[str], failures: Sequence[StockgraphError], **_: object) -> None:
        """Print the rest of the document."""
        errors = [escaped(str(failure)) for failure in failures]
        ending = orjson.dumps({"prices": self.prices, "notes": list(map(escaped, notes)), "errors": errors}).decode()
        print_lines(f"{self._opening.removesuffix(',')}],{ending.removeprefix('{')}")


class TextReport:
    """Report of a load as text, printed group by group as they are written."""

    prices: PricesDiff | None = None

    def __init__(self) -> None:
        self._count = self._changed = 0

    def add(self, diff: GroupDiff, group: GroupHoldings) -> None:
        """Print one group."""
        print_lines(*_group_lines(diff, group))
        self._count += 1
        self._changed += diff.changed

    def end(self, notes: Sequence[str], _: object, *, dry_run: bool) -> None:
        """Print the notes and the totals of groups and prices."""
        for note in notes:
            print_note(f"note: {note}")
        if self._count:
            would = "would change" if dry_run else "changed"
            written = "; a dry run, nothing was written" if dry_run else ""
            print_lines(f"{self._count} groups read, {self._changed} {would}{written}")
        if self.prices and self.prices.files:
            print_lines(_prices_text(self.prices, dry_run=dry_run))


def _group_lines(diff: GroupDiff, group: GroupHoldings) -> list[str]:
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
    return lines


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
