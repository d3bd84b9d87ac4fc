"""Settings: options and variables are one thing, and secrets stay out of sight."""

import os
from pathlib import Path

import pytest

from graph.model import Environment
from graph.settings import Settings


def test_the_defaults() -> None:
    assert Settings() == Settings(None, None, None, Environment.DEFAULT, "on", "on", "refuse", "UTC")


def test_what_is_written_to_the_environment_is_read_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("STOCKGRAPH", "DATABASE_URL", "CACHE_URL"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    assert Settings.from_environment() == Settings()
    every = Settings(
        database_url="postgresql://u:s3cret@host/db",
        home=Path("/somewhere"),
        cache_url="redis://:s3cret@host/0",
        environment=Environment.UAT,
        memo="off",
        answers="off",
        outage="stale",
        time_zone="America/New_York",
    )
    every.to_environment()
    assert Settings.from_environment() == every
    Settings().to_environment()
    assert Settings.from_environment() == Settings()


def test_secrets_are_not_shown() -> None:
    shown = repr(Settings(database_url="postgresql://u:s3cret@host/db", cache_url="redis://:s3cret@host/0"))
    assert "s3cret" not in shown
    assert shown.startswith("Settings(home=None, environment=<Environment.DEFAULT: 'DEFAULT'>, memo='on'")
