"""Settings, each of them an option of the command line and an environment variable."""

import logging
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, get_args, get_type_hints
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from cyclopts import App, Group, Parameter, validators

from graph.errors import StockgraphError
from graph.model import Environment

Switch = Literal["on", "off"]

# old names, accepted until 0.2.0
_DEPRECATED_OPTIONS = {"--memo": "--data-cache", "--answers": "--response-cache"}
_DEPRECATED_VARIABLES = {
    "STOCKGRAPH_MEMO": "STOCKGRAPH_DATA_CACHE",
    "STOCKGRAPH_ANSWERS": "STOCKGRAPH_RESPONSE_CACHE",
}

MIN_MEMORY, MAX_MEMORY = 16 * 1024**2, 4 * 1024**3
"""Bounds of `memory` in bytes: with less hardly anything stays cached, and `status` has 32 bits for a cache's half."""
_MEMORY = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)\s*([KMGT])I?B?|(\d{1,16})\s*B?", re.ASCII | re.IGNORECASE)
_HOST = re.compile(r"[\w.-]+", re.ASCII)
_ORIGIN = re.compile(r"https?://([\w.-]+|\[[0-9a-fA-F:.]+\])(:[0-9]+)?", re.ASCII)

log = logging.getLogger(__name__)


def _check_zone(_: object, zone: str) -> None:
    try:
        ZoneInfo(zone)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"{zone!r} is no time zone; write one such as America/New_York.") from error


def _bytes_of(memory: str) -> int | None:
    """Return the bytes of a text such as 256MB, counted in powers of 1,024; None if it is no such text."""
    found = _MEMORY.fullmatch(memory.strip())
    if not found:
        return None
    number, unit, plain = found.groups()
    return int(plain) if plain else int(float(number) * 1024 ** (" KMGT".index(unit.upper())))


def _check_memory(_: object, memory: str) -> None:
    size = _bytes_of(memory)
    if size is None:
        raise ValueError(f"{memory!r} is no size; write one such as 256MB or 1GB.")
    if not MIN_MEMORY <= size <= MAX_MEMORY:
        raise ValueError(f"{memory} is not between {MIN_MEMORY // 1024**2}MB and {MAX_MEMORY // 1024**3}GB.")


def _check_hosts(_: object, hosts: Sequence[str]) -> None:
    for host in hosts:
        if host != "*" and not _HOST.fullmatch(host) and not _is_address(host.strip("[]")):
            raise ValueError(f"{host!r} is no host name; write one such as stocks.example.com, without a port.")


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _check_origins(_: object, origins: Sequence[str]) -> None:
    for origin in origins:
        if not _ORIGIN.fullmatch(origin):
            raise ValueError(f"{origin!r} is no origin; write one such as https://dashboard.example.com.")


def _split_commas(_: object, text: str, delimiter: str | None = None) -> list[str]:
    return [part.strip() for part in text.split(delimiter or ",") if part.strip()]


@Parameter(name="*", group=Group("Settings", sort_key=10))
@dataclass(frozen=True)
class Settings:
    """Values of the settings: those of options, else of environment variables, else the defaults."""

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
            help="The folder of the embedded PostgreSQL; by default in your user data folder.",
            show_default=False,
        ),
    ] = None
    cache_url: Annotated[
        str | None,
        Parameter(
            env_var="CACHE_URL",
            help="A Redis or Valkey to cache universes in (redis://host:6379/0), in place of the server's memory.",
            show_default=False,
        ),
    ] = field(default=None, repr=False)
    environment: Annotated[
        Environment,
        Parameter(
            env_var="STOCKGRAPH_ENVIRONMENT", help="The environment of groups, for queries that do not name another."
        ),
    ] = Environment.DEFAULT
    data_cache: Annotated[
        Switch,
        Parameter(
            env_var="STOCKGRAPH_DATA_CACHE", help="Cache what queries read of the database; off is for measuring."
        ),
    ] = "on"
    response_cache: Annotated[
        Switch,
        Parameter(env_var="STOCKGRAPH_RESPONSE_CACHE", help="Cache whole responses; off is for measuring."),
    ] = "on"
    rate: Annotated[
        int | None,
        Parameter(
            env_var="STOCKGRAPH_RATE",
            help="The requests a minute that each caller or address may send; without it any number. "
            "With a Redis all server processes count together.",
            show_default=False,
            validator=validators.Number(gte=1),
        ),
    ] = None
    outage: Annotated[
        Literal["refuse", "stale"],
        Parameter(
            env_var="STOCKGRAPH_OUTAGE",
            help="While the database is down: refuse queries, or serve cached universes, marked stale in the response.",
        ),
    ] = "refuse"
    time_zone: Annotated[
        str,
        Parameter(
            env_var="STOCKGRAPH_TIME_ZONE",
            help="The time zone of the timestamps in the tables.",
            validator=_check_zone,
        ),
    ] = "UTC"
    allow_host: Annotated[
        tuple[str, ...],
        Parameter(
            env_var="STOCKGRAPH_ALLOW_HOST",
            env_var_split=_split_commas,
            help="Another host name by which requests may ask; * for any. May be repeated, commas in the variable.",
            show_default=False,
            negative="",
            validator=_check_hosts,
        ),
    ] = ()
    cors: Annotated[
        tuple[str, ...],
        Parameter(
            env_var="STOCKGRAPH_CORS",
            env_var_split=_split_commas,
            help="An origin (https://dashboard.example.com) whose pages may query. May be repeated, as above.",
            show_default=False,
            negative="",
            validator=_check_origins,
        ),
    ] = ()
    memory: Annotated[
        str,
        Parameter(
            env_var="STOCKGRAPH_MEMORY",
            help="The memory that the caches of each server process may take together, such as 256MB or 2GB.",
            validator=_check_memory,
        ),
    ] = "512MB"

    def __post_init__(self) -> None:
        """Raise StockgraphError if `cache_url` is malformed, without repeating it: it may hold a password."""
        if self.cache_url is None:
            return
        try:
            parts = urlsplit(self.cache_url)
            known = parts.scheme in ("redis", "rediss", "unix") and parts.port != 0
        except ValueError:
            known = False
        if not known:
            raise StockgraphError("CACHE_URL is not of the form redis://user:password@host:6379/0.")

    @property
    def memory_bytes(self) -> int:
        """The bytes that the caches of a process may hold together."""
        return _bytes_of(self.memory) or 0

    @classmethod
    def from_environment(cls) -> "Settings":
        """Read the environment variables alone, for a worker process, which has no command line."""
        normalize_variables()
        reader = App(version="")

        @reader.default
        def read(settings: Settings = cls()) -> Settings:  # noqa: B008 - frozen
            return settings

        _, bound, _ = reader.parse_args([], exit_on_error=False, print_error=False)
        return read(*bound.args, **bound.kwargs)

    def to_environment(self) -> None:
        """Write the environment variables, for worker processes to read."""
        for name, variable in _variables():
            value = getattr(self, name)
            if value is None or value == ():
                os.environ.pop(variable, None)
            else:
                os.environ[variable] = ",".join(value) if isinstance(value, tuple) else str(value)


def _variables() -> Iterator[tuple[str, str]]:
    hints = get_type_hints(Settings, include_extras=True)
    for each in fields(Settings):
        parameter = next(extra for extra in get_args(hints[each.name]) if isinstance(extra, Parameter))
        for variable in parameter.env_var or ():
            yield each.name, variable


def normalize_variables() -> None:
    """Unset empty variables, as Compose files write those that are not set, and rename deprecated ones with a warning.

    If a deprecated variable and its successor are both set, the successor is used.
    """
    for variable in [variable for _, variable in _variables()] + list(_DEPRECATED_VARIABLES):
        if not os.environ.get(variable):
            os.environ.pop(variable, None)
    for old, new in _DEPRECATED_VARIABLES.items():
        if old in os.environ:
            _warn_deprecated(old, new)
            os.environ.setdefault(new, os.environ.pop(old))


def rename_deprecated_options(tokens: Sequence[str]) -> list[str]:
    """Return the words of a command line with deprecated options renamed, each with a warning.

    If a deprecated option and its successor are both given, the successor is used.
    """
    end = tokens.index("--") if "--" in tokens else len(tokens)
    given = {token.partition("=")[0].replace("_", "-") for token in tokens[:end]}
    renamed: list[str] = []
    value_of_ignored = False
    for token in tokens[:end]:
        ignored = value_of_ignored and not token.startswith("-")
        value_of_ignored = False
        name, equals, value = token.partition("=")
        if new := _DEPRECATED_OPTIONS.get(name):
            _warn_deprecated(name, new)
            ignored = new in given
            value_of_ignored = ignored and not equals
            token = f"{new}{equals}{value}"  # noqa: PLW2901 - the same option
        if not ignored:
            renamed.append(token)
    return [*renamed, *tokens[end:]]


def _warn_deprecated(old: str, new: str) -> None:
    log.warning("%s is deprecated and will be removed in 0.2.0; use %s.", old, new)
