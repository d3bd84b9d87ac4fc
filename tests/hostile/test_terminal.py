"""Text of others reaches neither a terminal nor a log as anything but text."""

import logging
import os
import pty
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import asyncpg
import orjson
import pytest
from conftest import ROOT, database_at

from graph.cli.output import LineFormatter, escaped

HOSTILE = "a\x1b]0;forged\x07\x1b[2J\r\b\x7f\x9b31m\u202egnp\u2066\u2028b"
ESCAPED = r"a\u001b]0;forged\u0007\u001b[2J\u000d\u0008\u007f\u009b31m\u202egnp\u2066\u2028b"
FORGED = "\nfault: forged line"
# what a terminal obeys, a reader of lines takes for an end of one, or a reader of text sees turned around
DANGEROUS = re.compile("[\0-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
ORDINARY = "Société Générale · 株式会社 · شركة · 👩‍👩‍👧 · naïve — “q” 'x' \\ \\u0041"


def run(*arguments: str | bytes, **variables: str) -> tuple[int, str, str]:
    """The exit code of a command, and what it printed, as it is."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("STOCKGRAPH", "DATABASE"))}
    ended = subprocess.run(
        [sys.executable, "-m", "graph", *arguments],
        env={**kept, "PYTHONIOENCODING": "utf-8", "COLUMNS": "100", **variables},
        capture_output=True,
        timeout=120,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    printed, told = ended.stdout.decode(), ended.stderr.decode()
    assert DANGEROUS.findall(printed + told) == []
    return ended.returncode, printed, told


SYMBOLS = ["X\nAAPL", HOSTILE, "ÄÖ株"]


@pytest.fixture
async def hostile_url(market_url: str) -> str:
    """A market with a group and stocks whose names are hostile."""
    connection = await asyncpg.connect(market_url)
    await connection.executemany(
        "INSERT INTO definition_groups (name, type, environment) VALUES ($1, 'ETF', 'DEFAULT')",
        [["EVIL"], [HOSTILE + FORGED]],
    )
    await connection.executemany(
        "INSERT INTO group_memberships (group_id, symbol) SELECT id, $1 FROM definition_groups WHERE name = 'EVIL'",
        [[symbol] for symbol in SYMBOLS],
    )
    await connection.close()
    return market_url


def test_only_what_is_no_text_is_escaped() -> None:
    assert escaped(ORDINARY) == ORDINARY
    assert escaped(HOSTILE + FORGED) == ESCAPED + r"\u000afault: forged line"
    assert DANGEROUS.findall(escaped("".join(map(chr, range(0x11000))))) == []


async def test_names_in_the_database_do_not_reach_the_terminal(hostile_url: str) -> None:
    code, printed, _ = run("check", DATABASE_URL=hostile_url)
    assert (code, f"fault: ETF {ESCAPED}\\u000afault: forged line has no members." in printed.splitlines()) == (1, True)
    assert "fault: forged line" not in printed.splitlines()
    code, printed, _ = run("query", "EVIL", DATABASE_URL=hostile_url)
    assert printed.split("\n") == [r"X\u000aAAPL", ESCAPED, "ÄÖ株", ""]
    for arguments in (["--json"], []):
        code, printed, _ = run("query", '{ group(name: "EVIL") { symbols } }', *arguments, DATABASE_URL=hostile_url)
        assert orjson.loads(printed) == {"data": {"group": {"symbols": SYMBOLS}}}
    code, printed, _ = run("query", "EVIL", "--json", DATABASE_URL=hostile_url)
    assert orjson.loads(printed) == {"key": "EVIL", "size": 3, "symbols": SYMBOLS}


async def test_what_a_key_names_does_not_reach_the_terminal(hostile_url: str) -> None:
    code, printed, told = run("query", f'"{HOSTILE}x"', DATABASE_URL=hostile_url)
    assert (code, printed) == (1, "")
    assert told.startswith("error: There is no group ")
    assert told.count("\n") == 1


def test_cells_of_a_vendor_do_not_reach_the_terminal(market_url: str, tmp_path: Path) -> None:
    published = (ROOT / "tests/data/holdings/ishares.csv").read_text()
    cash = '"JPM","CASH COLLATERAL USD JPM"'
    assert cash in published
    ticker = (HOSTILE.replace("\r", "") + FORGED).upper()
    (tmp_path / "etf_EVIL.csv").write_text(published.replace(cash, f'"{ticker}","{HOSTILE}"'), newline="")
    code, printed, _ = run("load", str(tmp_path), "--dry-run", DATABASE_URL=market_url)
    assert code == 0
    assert f"left out: {escaped(ticker)} (collateral), " in printed.splitlines()[0]
    code, printed, _ = run("load", str(tmp_path), "--dry-run", "--json", DATABASE_URL=market_url)
    assert orjson.loads(printed)["groups"][0]["left_out"][0]["ticker"] == ticker


def test_names_of_files_do_not_reach_the_terminal(market_url: str, tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/etf_\x1b[2J\xff\n.csv"
    Path(os.fsdecode(name)).write_text("symbol\n")
    shown = rf"{tmp_path}/etf_\u001b[2J\udcff\u000a.csv"
    code, _, told = run("load", name, DATABASE_URL=market_url)
    assert (code, told.startswith(f"error: {shown}, line 1: "), told.count("\n")) == (1, True, 1)
    code, printed, _ = run("load", name, "--json", DATABASE_URL=market_url)
    assert (code, orjson.loads(printed)["errors"][0].startswith(f"{shown}, line 1: ")) == (1, True)
    code, _, told = run("load", name + b"x", DATABASE_URL=market_url)
    assert (code, shown in told, told.count("\n")) == (1, True, 1)


def test_what_postgresql_says_does_not_reach_the_terminal(market_url: str) -> None:
    code, _, told = run("query", "SPY", DATABASE_URL=database_at(market_url, "no\x1b[2J%0ax"))
    message = r'The database takes no connection: database "no\u001b[2J\u000ax" does not exist.'
    assert (code, told) == (1, f"error: {message}\n")


def test_the_progress_bar_shows_a_name_as_text(market_url: str, tmp_path: Path) -> None:
    path = tmp_path / "etf_\x1b]0;forged\x07.csv"
    path.write_text("symbol,weight\nAAPL,1\n")
    parent, terminal = pty.openpty()
    command = [sys.executable, "-m", "graph", "load", "--dry-run", "--name", "EVIL", "--type", "ETF", path]
    with subprocess.Popen(
        command,
        env={**os.environ, "DATABASE_URL": market_url, "TERM": "xterm", "COLUMNS": "300"},
        stdout=terminal,
        stderr=terminal,
    ) as process:
        os.close(terminal)
        drawn = b""
        with suppress(OSError):  # a terminal that nobody writes to any more
            while read := os.read(parent, 100_000):
                drawn += read
        os.close(parent)
    assert process.returncode == 0
    assert rb"/etf_\u001b]0;forged\u0007.csv" in drawn
    assert b"\x1b]0" not in drawn


def test_a_log_has_a_line_for_each_record_and_indents_tracebacks() -> None:
    formatter = LineFormatter("%(levelname)s: %(message)s")
    error = ValueError("x\x1b[2J\nINFO: forged")
    failure = (ValueError, error, None)
    record = logging.LogRecord("x", logging.ERROR, "x.py", 1, "said %s", (HOSTILE + FORGED,), failure)
    first, *rest = formatter.format(record).split("\n")
    assert first == f"ERROR: said {ESCAPED}\\u000afault: forged line"
    assert [line for line in rest if not line.startswith("    ")] == []
    assert rest == [r"    ValueError: x\u001b[2J", "    INFO: forged"]


def test_an_exception_that_nobody_catches_is_logged_as_text() -> None:
    program = (
        "from graph.cli.output import configure_logging\nconfigure_logging()\nraise RuntimeError(chr(155) + chr(27))\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    told = ended.stderr.decode()
    assert told.startswith("CRITICAL: stockgraph failed.\n    Traceback ")
    assert told.endswith("    RuntimeError: \\u009b\\u001b\n")
