"""Files -> rows of text: CSV and Excel workbooks, plain or gzipped, detected by content and read within limits."""

import csv
import gzip
import io
import os
import re
import stat
import zlib
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeAlias

from graph.errors import InputFileError
from graph.loading.workbooks import MAX_WORKBOOK, WorkbookRefused, read_workbook

MAX_LINE = 131_072
"""Maximum characters of a line, the same as of a field in Python's csv."""
MAX_BLANK = 10_000
"""Maximum consecutive blank lines."""
MAX_ERRORS = 20
"""Number of bad rows of one file that are named; further ones are counted."""

TextRow = tuple[int, list[str]]
"""The line on which a row begins, and its fields without surrounding white space."""
Progress: TypeAlias = Callable[[str, int, int | None], None]
"""A callback for progress: the action, the amount done, and the total if it is known."""

_PROGRESS_ROWS = 5_000  # rows between two calls of a progress callback

_NO_TEXT = {
    b"\xd0\xcf\x11\xe0": "is an Excel file of the old kind (.xls); save it as .xlsx or CSV",
    b"%PDF": "is a PDF; download the holdings as CSV or .xlsx",
}


class FileFingerprint(NamedTuple):
    """Identity of a file's content: it differs whenever the content was changed."""

    inode: int
    size: int
    written: int


class NotHoldings(InputFileError):
    """The file holds no holdings."""


class FileErrors:
    """The errors of one file: its first bad rows, the number of further ones, and the error that ended the reading."""

    def __init__(self, path: Path, fingerprint: FileFingerprint | None = None) -> None:
        self.path = path
        self.fingerprint = fingerprint
        """Fingerprint of the file when it was read; if one is given, a file that differs is an error."""
        self.first: list[InputFileError] = []
        self.more = 0
        self.final: tuple[InputFileError, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.first or self.final)

    def add(self, line: int, reason: str) -> None:
        """Count a bad row."""
        if len(self.first) < MAX_ERRORS:
            self.first.append(self.error(reason, line))
        else:
            self.more += 1

    def end(self, error: InputFileError) -> None:
        """Record the error that ended the reading."""
        self.final = (error,)

    def all(self) -> tuple[InputFileError, ...]:
        """Return the errors in the order of the file."""
        more = [self.error(f"{self.more:,} more bad rows")] if self.more else []
        return (*self.first, *more, *self.final)

    def error(self, reason: str, line: int = 0, kind: type[InputFileError] = InputFileError) -> InputFileError:
        """Make an error that names the file and the line."""
        return kind(f"{self.path}{f', line {line}' if line else ''}: {reason}.")


def quoted(text: str, most: int = 100) -> str:
    """Return text from a file quoted and shortened, so that it fits into a line."""
    return repr(text if len(text) <= most else text[: most - 1] + "…")


def read_rows(errors: FileErrors, progress: Progress | None = None) -> Generator[TextRow, None, None]:
    """Yield the rows of a file that are not blank; raise InputFileError if it cannot be read any further.

    A workbook is read from its sheet `holdings`, else from its first. Lines that are not UTF-8 are added to `errors`. A
    file that is changed while it is read is an error at its end.
    """
    path, start = errors.path, 1
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise errors.error("is not a file")
        with path.open("rb") as file:
            size = _check_fingerprint(errors, file).size
            packed = file.peek(2)[:2] == b"\x1f\x8b"
            source = gzip.GzipFile(fileobj=file) if packed else file
            magic = source.peek(4)[:4]
            if magic in _NO_TEXT:
                raise errors.error(_NO_TEXT[magic])
            if magic == b"PK\x03\x04":
                yield from _workbook(errors, source.read(MAX_WORKBOOK + 1))
                return
            with io.TextIOWrapper(source, encoding="utf-8-sig", errors="surrogateescape") as text:
                reader = csv.reader(_lines(errors, text), skipinitialspace=True, strict=True)
                for number, row in enumerate(reader):
                    if progress and number % _PROGRESS_ROWS == 0:
                        progress(f"Reading {path}", file.tell(), size)
                    fields = [value.strip() for value in row]
                    if any(fields):
                        yield start, fields
                    start = reader.line_num + 1
                _check_fingerprint(errors, file)
    except csv.Error as error:
        unclosed = " (a double quote is never closed)" if "unexpected end" in str(error) else ""
        raise errors.error(f"the row that begins here is not CSV; {error}{unclosed}", start) from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise errors.error(f"is not whole as a gzip file: {error}", start) from error
    except OSError as error:
        raise errors.error(f"cannot be read: {error.strerror}") from error


def columns_of(errors: FileErrors, line: int, header: Sequence[str]) -> dict[str, int]:
    """Return the index of each column by its name in lower case; raise InputFileError if a name occurs twice."""
    if not header:
        raise errors.error("is empty")
    columns: dict[str, int] = {}
    for index, name in enumerate(header):
        if name and columns.setdefault(name.lower(), index) != index:
            raise errors.error(f"the column {quoted(name)} is there twice", line)
    return columns


def _check_fingerprint(errors: FileErrors, file: BinaryIO) -> FileFingerprint:
    """Raise InputFileError if a file changed since it was read before; return its fingerprint."""
    now = os.fstat(file.fileno())
    fingerprint = FileFingerprint(now.st_ino, now.st_size, now.st_mtime_ns)
    if errors.fingerprint not in (None, fingerprint):
        raise errors.error("changed while it was read; load it again")
    errors.fingerprint = fingerprint
    return fingerprint


def _lines(errors: FileErrors, text: io.TextIOWrapper) -> Iterator[str]:
    """Yield lines of text; those that are not UTF-8 become errors."""
    line, blank, begun = 1, 0, False
    while read := text.readline(MAX_LINE + 1):
        if "\0" in read:
            raise errors.error("holds a zero byte; this is not a text file", line)
        blank = 0 if read.strip() else blank + 1
        if not begun and not blank:
            begun = True
            if read.lstrip().startswith("<"):
                raise errors.error("is a page of HTML or XML and not CSV; download it again", line)
        if blank > MAX_BLANK:
            raise errors.error(f"is the last of more than {MAX_BLANK:,} blank lines", line)
        if len(read) > MAX_LINE:
            raise errors.error(f"is longer than {MAX_LINE:,} characters", line)
        if not read.isascii() and (bad := re.search("[\udc80-\udcff]", read)):
            byte = ord(bad[0]) - 0xDC00
            errors.add(line, f"character {bad.start() + 1} is not UTF-8 (byte {byte:#x}); save the file as UTF-8")
            read = read.encode(errors="replace").decode()
        # blanks between a closing quote and a comma are common, but csv rejects them
        yield re.sub(r'"[ \t]+(?=,|$)', '"', read) if '"' in read else read
        line += 1


def _workbook(errors: FileErrors, data: bytes) -> list[TextRow]:
    """Return the rows of a workbook that are not blank."""
    try:
        return read_workbook(data)
    except WorkbookRefused as error:
        raise errors.error(str(error), error.line) from error
    except Exception as error:
        # a damaged workbook or another kind of document makes openpyxl raise any exception
        what = f"{type(error).__name__}: {' '.join(str(error).split())}".strip(": ")
        raise errors.error(f"is no Excel workbook that can be read ({quoted(what)})") from error
