"""TickStock's entries, read from its table `cache_entries` or from a JSON file of it.

An entry is a row of that table, as JSON: `type`, `key`, `name`, `value`, `environment`, `updated_at`, `created_at`.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

from graph.errors import DatabaseUnavailable, StockgraphError
from graph.loading.files import FileErrors, quoted
from graph.model import GroupType
from graph.postgres.database import Database, translated_errors
from graph.postgres.statements import read_statements

GROUP_TYPES = {
    "etf_holdings": GroupType.ETF,
    "theme_definition": GroupType.THEME,
    "themes": GroupType.THEME,
    "sector_industry_map": GroupType.SECTOR,
    "stock_universe": GroupType.UNIVERSE,
    "etf_universe": GroupType.UNIVERSE,
    "stock_etf_combo": GroupType.UNIVERSE,
}
"""The type of the groups that an entry holds, by the type of the entry."""
MAX_SOURCE = 32 * 2**20
"""Maximum bytes of JSON; the hundreds of entries of a TickStock take about 2 MB."""
MAX_ENTRIES = 200_000
"""Maximum number of entries in a file."""
MAX_DIGITS = 18
"""Maximum digits of an integer; a longer one stays text, since not every JSON parser has numbers for it."""

_NEXT = re.compile(r"\S")
_FRAME = re.compile(r"[^\n\[{]*\n(?: *-+\r?\n|(?=[\[{]))")
_EXPORT = "psql -At -c 'SELECT json_agg(t) FROM cache_entries AS t'"
_SQL = read_statements("graph.loading", "tickstock_entries.sql")

TickStockEntry: TypeAlias = Mapping[str, Any]
"""A row of cache_entries."""


def read_file(path: Path) -> list[object]:
    """Read the entries of a JSON file; raise InputFileError if it cannot be read.

    The file holds the output of psql for json_agg or row_to_json over the table, with or without psql's frame: a list
    of rows, or one row after another. Or it holds an object, {type: {key: value}}.
    """
    errors = FileErrors(path)
    text = _without_frame(_read_text(errors))
    entries: list[object] = []
    place = 0
    while found := _NEXT.search(text, place):
        try:
            value, place = _JSON.raw_decode(text, found.start())
            rows = _entries_of(parse_json(value) if isinstance(value, str) else value)
            entries += islice(rows, MAX_ENTRIES + 1)
        except json.JSONDecodeError as error:
            raise errors.error(f"is not JSON here ({error.msg}); export it by {_EXPORT}", error.lineno) from error
        except RecursionError as error:
            raise errors.error("is nested too deep") from error
        except ValueError as error:
            raise errors.error(str(error)) from error
        if len(entries) > MAX_ENTRIES:
            raise errors.error(f"holds more than {MAX_ENTRIES:,} entries")
    if not entries:
        raise errors.error("holds no entries")
    return entries


def _read_text(errors: FileErrors) -> str:
    try:
        if not errors.path.is_file():
            raise errors.error("is not a file")
        with errors.path.open("rb") as file:
            data = file.read(MAX_SOURCE + 1)
    except OSError as error:
        raise errors.error(f"cannot be read: {error.strerror}") from error
    if len(data) > MAX_SOURCE:
        raise errors.error(f"is larger than {MAX_SOURCE // 2**20} MB")
    try:
        # PowerShell's > writes UTF-16
        return data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise errors.error("is no text in UTF-8") from error


def _without_frame(text: str) -> str:
    """Remove the frame that psql writes around a result; lines keep their numbers."""
    frame = _FRAME.match(text)
    if not frame:
        return text
    lines = re.sub(r"\n\(\d+ \w+\)\s*\Z", "", text[frame.end() :]).split("\n")
    return "\n" * frame[0].count("\n") + "\n".join(line.rstrip().removesuffix("+") for line in lines)


def _entries_of(value: object) -> Iterator[object]:
    """Yield the entries of a JSON value."""
    match value:
        case None:  # json_agg of no rows
            return
        case list():
            yield from value
        case {"type": str()}:
            yield value
        case dict():
            for kind, held in value.items():
                match held:
                    case list():
                        yield from held
                    case dict():
                        yield from ({"type": kind, "key": key, "value": each} for key, each in held.items())
                    case _:
                        yield {"type": kind, "value": held}
        case _:
            yield value


async def read_table(url: str) -> list[TickStockEntry]:
    """Read the entries of a database; raise StockgraphError if they cannot be read."""
    try:
        connection = await Database(url).connect(statement_seconds=None)
        try:
            with translated_errors():
                async with connection.transaction(isolation="repeatable_read", readonly=True):
                    if await connection.fetchval(_SQL["is_table_missing"]):
                        other = "name the address of another database, or a JSON file"
                        raise StockgraphError(f"The database has no table cache_entries; {other}.")
                    size = await connection.fetchval(_SQL["entries_size"], list(GROUP_TYPES))
                    if size > MAX_SOURCE:
                        most = f"{MAX_SOURCE // 2**20} MB"
                        raise StockgraphError(f"The groups in cache_entries are {size:,} bytes of JSON, over {most}.")
                    return [dict(row) for row in await connection.fetch(_SQL["entries"], list(GROUP_TYPES))]
        finally:
            connection.terminate()
    except DatabaseUnavailable as error:
        raise StockgraphError(f"The old database: {str(error).replace('DATABASE_URL', 'its address')}") from error


def parse_json(text: str) -> Any:
    """Parse JSON; raise ValueError if it is none, is nested too deep, or has a key twice."""
    try:
        return _JSON.decode(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"is text that is not JSON ({quoted(text, 30)}: {error.msg})") from error
    except RecursionError as error:
        raise ValueError("is nested too deep") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"has the key {quoted(twice)} twice in one object")
    return made


def _integer(written: str) -> int | str:
    return int(written) if len(written) <= MAX_DIGITS else written


def _float(written: str) -> float | str:
    number = float(written)
    return number if math.isfinite(number) else written


_JSON = json.JSONDecoder(object_pairs_hook=_object, parse_float=_float, parse_int=_integer, parse_constant=str)
