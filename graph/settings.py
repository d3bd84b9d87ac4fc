"""What a person may set, each an option of the command line and a variable of the environment alike."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Literal, get_args, get_type_hints
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from cyclopts import App, Group, Parameter

from graph.errors import StockgraphError
from graph.model import Environment

Switch = Literal["on", "off"]


def _check_zone(_: object, zone: str) -> None:
    try:
        ZoneInfo(zone)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"{zone!r} is no time zone; write one such as America/New_York.") from error


@Parameter(name="*", group=Group("Settings", sort_key=10))
@dataclass(frozen=True)
class Settings:
    """Read once, from options first and the environment second, and passed to whoever needs it."""

    database_url: Annotated[
        str | None,
        Parameter(
            env_var="DATABASE_URL",
            help="The PostgreSQL to use, as postgresql://user:password@host/database. "
            "Without it stockgraph runs one of its own.",
            show_default=False,
        ),
    ] = field(default=None, repr=False)
    home: Annotated[
        Path | None,
        Parameter(
            env_var="STOCKGRAPH_HOME",
            help="The folder of the embedded PostgreSQL; your user data folder unless told otherwise.",
            show_default=False,
        ),
    ] = None
    cache_url: Annotated[
        str | None,
        Parameter(
            env_var="CACHE_URL",
            help="Remember universes in this Redis or Valkey (redis://host:6379/0) and not in the server's memory.",
            show_default=False,
        ),
    ] = field(default=None, repr=False)
    environment: Annotated[
        Environment,
        Parameter(env_var="STOCKGRAPH_ENVIRONMENT", help="The environment whose groups are meant where none is named."),
    ] = Environment.DEFAULT
    memo: Annotated[
        Switch, Parameter(env_var="STOCKGRAPH_MEMO", help="Remember universes; off is for measuring what that gives.")
    ] = "on"
    answers: Annotated[
        Switch,
        Parameter(env_var="STOCKGRAPH_ANSWERS", help="Keep whole answers; off is for measuring what that gives."),
    ] = "on"
    outage: Annotated[
        Literal["refuse", "stale"],
        Parameter(
            env_var="STOCKGRAPH_OUTAGE",
            help="While the database is down: refuse, or give remembered universes, marked stale in the answer.",
        ),
    ] = "refuse"
    time_zone: Annotated[
        str,
        Parameter(
            env_var="STOCKGRAPH_TIME_ZONE",
            help="The zone that the tables' timestamps are written in.",
            validator=_check_zone,
        ),
    ] = "UTC"

    def __post_init__(self) -> None:
        """Refuse an address of no Redis, in words that do not repeat it: it may hold a password."""
        if self.cache_url is None:
            return
        try:
            parts = urlsplit(self.cache_url)
            known = parts.scheme in ("redis", "rediss", "unix") and parts.port != 0
        except ValueError:
            known = False
        if not known:
            raise StockgraphError("CACHE_URL is not of the form redis://user:password@host:6379/0.")

    @classmethod
    def from_environment(cls) -> "Settings":
        """Read the variables alone: what a worker process does, which has no command line."""
        drop_empty_variables()
        reader = App(version="")

        @reader.default
        def read(settings: Settings = cls()) -> Settings:  # noqa: B008 - frozen
            return settings

        _, bound, _ = reader.parse_args([], exit_on_error=False, print_error=False)
        return read(*bound.args, **bound.kwargs)

    def to_environment(self) -> None:
        """Write the variables, for the worker processes to come."""
        for name, variable in _variables():
            value = getattr(self, name)
            if value is None:
                os.environ.pop(variable, None)
            else:
                os.environ[variable] = str(value)


def _variables() -> Iterator[tuple[str, str]]:
    hints = get_type_hints(Settings, include_extras=True)
    for each in fields(Settings):
        parameter = next(extra for extra in get_args(hints[each.name]) if isinstance(extra, Parameter))
        for variable in parameter.env_var or ():
            yield each.name, variable


def drop_empty_variables() -> None:
    """Take a variable that holds nothing for one that is not set, as compose files mean it."""
    for _, variable in _variables():
        if not os.environ.get(variable):
            os.environ.pop(variable, None)
