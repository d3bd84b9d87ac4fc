"""SQL statements: read from .sql files by name, and composed for past days and for generations."""

import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Literal

Family = Literal["groups", "prices"]
"""Tables whose changes are counted together: those of groups and their stocks, and that of prices."""


def read_statements(package: str, file: str) -> dict[str, str]:
    """Split an SQL file of a package into its statements by name, without comments.

    Each statement follows a line `-- name: its_name`.
    """
    text = files(package).joinpath(file).read_text()
    named = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)[1:]
    return {
        name: re.sub(r"^\s*--.*\n", "", sql, flags=re.MULTILINE).strip().removesuffix(";")
        for name, sql in zip(named[::2], named[1::2], strict=True)
    }


STATEMENTS: Mapping[str, str] = read_statements("graph.postgres", "queries.sql")
"""The statements that the server sends, by name."""

FAMILIES: Mapping[str, Family] = {
    name: "prices" if "FROM ohlcv_daily" in sql else "groups" for name, sql in STATEMENTS.items()
}
"""The family of tables that each statement reads; none reads both."""


def _at_past_day(sql: str) -> str:
    """Make a statement read groups and memberships as they stood on a day, which becomes its last argument."""
    day = f"${1 + max(map(int, re.findall(r'[$]([0-9]+)', sql)), default=0)}::date"
    sql = sql.replace("definition_groups AS", f"groups_on({day}) AS")
    return sql.replace("group_memberships AS", f"memberships_on({day}) AS")


def _with_generation(sql: str) -> str:
    """Wrap a statement so that its rows carry the generations of their snapshot."""
    return STATEMENTS["with_generation"].replace("/* statement */", sql)


TEXTS: Mapping[tuple[str, bool, bool], str] = {
    (name, with_generation, dated): (_with_generation if with_generation else str)(_at_past_day(sql) if dated else sql)
    for name, sql in STATEMENTS.items()
    for with_generation in (False, True)
    for dated in (False, True)
}
"""Each statement in its four forms: its name, whether its rows carry generations, and whether it reads a past day."""
