"""Settings: options and variables are one thing, and secrets stay out of sight."""

import os
import re
from pathlib import Path

import pytest
from cyclopts import CycloptsError

from graph.model import Environment
from graph.settings import Settings, normalize_variables, rename_deprecated_options


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> "os._Environ[str]":
    """An environment without settings, to be changed at will."""
    for name in [name for name in os.environ if name.startswith(("STOCKGRAPH", "DATABASE_URL", "CACHE_URL"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    return os.environ


def deprecated(old: str, new: str) -> str:
    return f"{old} is deprecated and will be removed in 0.2.0; use {new}."


def test_the_defaults() -> None:
    settings = Settings(None, None, None, Environment.DEFAULT, "on", "on", None, "refuse", "UTC", (), (), "512MB")
    assert Settings() == settings


@pytest.mark.usefixtures("variables")
def test_what_is_written_to_the_environment_is_read_from_it() -> None:
    assert Settings.from_environment() == Settings()
    every = Settings(
        database_url="postgresql://u:s3cret@host/db",
        home=Path("/somewhere"),
        cache_url="redis://:s3cret@host/0",
        environment=Environment.UAT,
        data_cache="off",
        response_cache="off",
        rate=600,
        outage="stale",
        time_zone="America/New_York",
        memory="1.5 GB",
        allow_host=("stocks.example.com", "::1"),
        cors=("https://dash.example.com", "http://[::1]:8001"),
    )
    every.to_environment()
    assert Settings.from_environment() == every
    Settings().to_environment()
    assert Settings.from_environment() == Settings()


def test_secrets_are_not_shown() -> None:
    shown = repr(Settings(database_url="postgresql://u:s3cret@host/db", cache_url="redis://:s3cret@host/0"))
    assert "s3cret" not in shown
    assert shown.startswith("Settings(home=None, environment=<Environment.DEFAULT: 'DEFAULT'>, data_cache='on'")


def test_lists_are_separated_by_commas_in_variables(variables: dict[str, str]) -> None:
    variables.update(STOCKGRAPH_ALLOW_HOST=" a.example ,*,, [::1],", STOCKGRAPH_CORS="https://a.example")
    assert Settings.from_environment() == Settings(allow_host=("a.example", "*", "[::1]"), cors=("https://a.example",))


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        *(
            ("STOCKGRAPH_ALLOW_HOST", text, f"{text!r} is no host name; write one such as stocks.example.com")
            for text in ("https://a.example", "a.example:8000", "a/b", "*.example", "a b", "[::1]:80", "ü.example")
        ),
        *(
            ("STOCKGRAPH_CORS", text, f"{text!r} is no origin; write one such as https://dashboard.example.com.")
            for text in ("*", "null", "a.example", "https://a.example/", "https://a.example/x", "https://*.a.example")
        ),
    ],
)
def test_hosts_and_origins_that_no_browser_sends_are_refused(
    variables: dict[str, str], variable: str, text: str, message: str
) -> None:
    variables[variable] = text
    with pytest.raises(CycloptsError, match=re.escape(message)):
        Settings.from_environment()


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("STOCKGRAPH_MEMO", "STOCKGRAPH_DATA_CACHE", "data_cache"),
        ("STOCKGRAPH_ANSWERS", "STOCKGRAPH_RESPONSE_CACHE", "response_cache"),
    ],
)
def test_deprecated_variables_work_and_name_their_successors(
    variables: dict[str, str], caplog: pytest.LogCaptureFixture, old: str, new: str, field: str
) -> None:
    for value in ("off", "on"):
        variables.pop(new, None)
        variables[old] = value
        caplog.clear()
        assert getattr(Settings.from_environment(), field) == value
        assert caplog.messages == [deprecated(old, new)]
        assert (variables.get(new), variables.get(old)) == (value, None)
    # worker processes and a second reading are not warned again
    caplog.clear()
    assert getattr(Settings.from_environment(), field) == "on"
    variables[old] = ""
    assert getattr(Settings.from_environment(), field) == "on"
    assert caplog.messages == []


def test_new_variables_win_over_deprecated_ones(variables: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    variables.update(STOCKGRAPH_MEMO="on", STOCKGRAPH_DATA_CACHE="off")
    assert Settings.from_environment() == Settings(data_cache="off")
    assert caplog.messages == [deprecated("STOCKGRAPH_MEMO", "STOCKGRAPH_DATA_CACHE")]
    variables.update(STOCKGRAPH_MEMO="off", STOCKGRAPH_DATA_CACHE="")
    normalize_variables()
    assert variables["STOCKGRAPH_DATA_CACHE"] == "off"


@pytest.mark.parametrize(
    ("tokens", "renamed", "warned"),
    [
        (["check"], ["check"], []),
        (["check", "--memo", "off"], ["check", "--data-cache", "off"], ["--memo"]),
        (["check", "--memo=off", "x"], ["check", "--data-cache=off", "x"], ["--memo"]),
        (
            ["serve", "--answers", "off", "--memo", "on"],
            ["serve", "--response-cache", "off", "--data-cache", "on"],
            ["--answers", "--memo"],
        ),
        (["check", "--memo", "off", "--data-cache", "on"], ["check", "--data-cache", "on"], ["--memo"]),
        (["check", "--data_cache=on", "--memo", "off", "x"], ["check", "--data_cache=on", "x"], ["--memo"]),
        (["load", "--data-cache", "on", "--memo=off", "x"], ["load", "--data-cache", "on", "x"], ["--memo"]),
        (["check", "--memo", "--data-cache", "on"], ["check", "--data-cache", "on"], ["--memo"]),
        (["check", "--memo"], ["check", "--data-cache"], ["--memo"]),
        (["query", "--", "--memo", "off"], ["query", "--", "--memo", "off"], []),
        (["query", "memo", "--name=--memo"], ["query", "memo", "--name=--memo"], []),
        ([], [], []),
    ],
)
def test_deprecated_options_are_renamed(
    caplog: pytest.LogCaptureFixture, tokens: list[str], renamed: list[str], warned: list[str]
) -> None:
    assert rename_deprecated_options(tokens) == renamed
    new = {"--memo": "--data-cache", "--answers": "--response-cache"}
    assert caplog.messages == [deprecated(old, new[old]) for old in warned]


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("16MB", 16 * 1024**2),
        ("256 mb", 256 * 1024**2),
        ("1.5GiB", 1536 * 1024**2),
        ("4G", 4 * 1024**3),
        ("33554432", 2**25),
    ],
)
def test_memory_is_written_as_people_write_it(variables: dict[str, str], written: str, size: int) -> None:
    variables["STOCKGRAPH_MEMORY"] = written
    assert Settings.from_environment().memory_bytes == size


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("lots", "'lots' is no size; write one such as 256MB or 1GB."),
        ("-1MB", "'-1MB' is no size; write one such as 256MB or 1GB."),
        ("15MB", "15MB is not between 16MB and 4GB."),
        ("5GB", "5GB is not between 16MB and 4GB."),
    ],
)
def test_memory_that_is_none_is_refused(variables: dict[str, str], written: str, reason: str) -> None:
    variables["STOCKGRAPH_MEMORY"] = written
    with pytest.raises(CycloptsError, match=re.escape(reason)):
        Settings.from_environment()
