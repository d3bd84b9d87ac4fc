"""The command, run as a person runs it: in processes of its own."""

import fcntl
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from threading import Barrier, Event
from typing import ClassVar
from urllib.parse import urlsplit

import asyncpg
import httpx2
import pytest
from conftest import ROOT

from graph.postgres.embedded import embedded_postgres

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def environment(**variables: str) -> dict[str, str]:
    """The environment of a person who has set nothing of ours but these."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("STOCKGRAPH", "DATABASE", "CACHE", "PG"))
    }
    return {**kept, "PYTHONWARNINGS": "error", "COLUMNS": "100", **variables}


def run(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "graph", *arguments],
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def start(*arguments: str, **variables: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "graph", *arguments],
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def until(holds: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came to hold"
        time.sleep(0.01)


class Server:
    """A `stockgraph serve` in a process of its own."""

    running: ClassVar[list["subprocess.Popen[str]"]] = []

    def __init__(self, *arguments: str, **variables: str) -> None:
        self.port = free_port()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "graph", "serve", "--port", str(self.port), *arguments],
            env=environment(**variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        self.running.append(self.process)
        try:
            until(self.ready)
        except BaseException:
            self.process.kill()
            raise

    def ready(self) -> bool:
        assert self.process.poll() is None, self.process.communicate()[0]
        try:
            return httpx2.get(f"http://127.0.0.1:{self.port}/readyz", timeout=5).status_code == 200
        except httpx2.TransportError:
            return False

    def ask(self, query: str) -> dict[str, object]:
        answer: dict[str, object] = httpx2.post(
            f"http://127.0.0.1:{self.port}/graphql", json={"query": query}, timeout=30
        ).json()
        return answer

    def stop(self, by: signal.Signals = signal.SIGTERM) -> str:
        """Stop it; what it printed."""
        self.process.send_signal(by)
        printed, _ = self.process.communicate(timeout=30)
        return printed


@pytest.fixture(autouse=True)
def no_server_outlives_its_test() -> Iterator[None]:
    yield
    for process in Server.running:
        if process.poll() is None:
            process.kill()
            process.communicate()
    Server.running.clear()


@pytest.fixture(scope="module")
def home() -> Iterator[str]:
    """A folder for an embedded PostgreSQL that an unprivileged user can reach."""
    with tempfile.TemporaryDirectory(prefix="stockgraph-cli-") as folder:
        Path(folder).chmod(0o755)
        yield folder


def postmaster(home: str) -> int | None:
    """The process id of the PostgreSQL of a home; None where there is none."""
    for found in Path(home).rglob("postmaster.pid"):
        number = int(found.read_text().split("\n")[0])
        return number if Path(f"/proc/{number}").exists() else None
    return None


def test_serve_fills_an_empty_database_shares_it_with_commands_and_stops_it(home: str) -> None:
    server = Server(STOCKGRAPH_HOME=home)
    try:
        answer = server.ask('{ universe(key: "sp500:sp400:sp600") { size } groups { totalCount } }')
        assert answer == {"data": {"universe": {"size": 1505}, "groups": {"totalCount": 55}}}
        asked = run("query", "dow30&sp500", STOCKGRAPH_HOME=home)
        assert (asked.returncode, len(asked.stdout.splitlines()), asked.stderr) == (0, 30, "")
        checked = run("check", STOCKGRAPH_HOME=home)
        assert checked.stdout.splitlines() == [
            "warning: ETF QQQ has 15 of 103 members in no sector (ALAB, ALNY, ARM, ASML, CCEP ...).",
            "warning: ETF QQQE has 15 of 103 members in no sector (ALAB, ALNY, ARM, ASML, CCEP ...).",
            "warning: ETF DIA has no weights (30 members).",
            "warning: ETF QQQ has no weights (103 members).",
            "warning: ETF SPY has no weights (503 members).",
            "0 faults, 5 warnings",
        ]
        assert checked.returncode == 0
        assert postmaster(home) is not None
    finally:
        printed = server.stop()
    assert server.process.returncode == 0
    assert printed.splitlines() == [
        "The database is empty and gets demo data: real sectors, indexes, funds and themes.",
        f"stockgraph {version('stockgraph')}  (Ctrl-C stops it)",
        f"  serves  http://127.0.0.1:{server.port}/graphql  GraphiQL in a browser, the API to programs",
        f"  data    {home} (a PostgreSQL of its own)",
        "  holds   55 groups (19 ETF, 20 THEME, 11 SECTOR, 5 UNIVERSE); 1,520 stocks; no prices (`stockgraph load FILE` brings them)",
        "  docs    https://github.com/stockgraph/stockgraph#readme",
        "INFO: Changes of the database are recorded and followed.",
    ]
    assert postmaster(home) is None


def test_a_second_start_finds_what_the_first_left(home: str) -> None:
    server = Server(STOCKGRAPH_HOME=home)
    assert server.ask("{ groups { totalCount } }") == {"data": {"groups": {"totalCount": 55}}}
    assert "demo" not in server.stop(signal.SIGINT)
    assert server.process.returncode == 0
    assert postmaster(home) is None


def test_a_killed_postgresql_is_an_error_under_load_and_is_back_by_itself(home: str) -> None:
    # nothing that is kept may answer meanwhile
    server = Server(STOCKGRAPH_HOME=home, STOCKGRAPH_DATA_CACHE="off", STOCKGRAPH_RESPONSE_CACHE="off")
    try:
        query = '{ stock(symbol: "AAPL") { sector { name } } universe(key: "dow30") { size } }'
        good = {"data": {"stock": {"sector": {"name": "information_technology"}}, "universe": {"size": 30}}}
        assert server.ask(query) == good
        first = postmaster(home)
        assert first is not None
        asking, back = Barrier(11), Event()

        def keep_asking() -> tuple[list[dict[str, object]], list[dict[str, object]]]:
            asking.wait()
            meanwhile = []
            while not back.is_set():
                meanwhile.append(server.ask(query))
            return meanwhile, [server.ask(query) for _ in range(20)]

        with ThreadPoolExecutor(10) as clients:
            asked = [clients.submit(keep_asking) for _ in range(10)]
            asking.wait()
            os.kill(first, signal.SIGKILL)
            try:
                until(lambda: postmaster(home) not in (None, first) and server.ready())
            finally:
                back.set()
            answers = [client.result() for client in asked]
        wrong = [answer for meanwhile, _ in answers for answer in meanwhile if answer != good]
        codes = {error["extensions"]["code"] for answer in wrong for error in answer["errors"]}
        assert codes == {"DATABASE_UNAVAILABLE"}
        assert [answer for _, after in answers for answer in after if answer != good] == []
        assert postmaster(home) not in (None, first)
    finally:
        server.stop()
    assert postmaster(home) is None


def test_a_killed_server_leaves_nothing_to_repair(home: str) -> None:
    server = Server(STOCKGRAPH_HOME=home)
    server.process.kill()
    server.process.communicate()
    again = Server(STOCKGRAPH_HOME=home)
    assert again.ask("{ groups { totalCount } }") == {"data": {"groups": {"totalCount": 55}}}
    again.stop()
    assert postmaster(home) is None


def test_a_server_that_is_ended_while_it_fills_the_demo_begins_anew(home: str) -> None:
    other = f"{home}/other"
    server = subprocess.Popen(
        [sys.executable, "-m", "graph", "serve", "--port", str(free_port())],
        env=environment(STOCKGRAPH_HOME=other),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stderr
    assert server.stderr.readline().startswith("The database is empty")
    server.kill()
    server.wait()
    server.stderr.close()
    after = Server(STOCKGRAPH_HOME=other)
    assert after.ask("{ groups { totalCount } }") == {"data": {"groups": {"totalCount": 55}}}
    after.stop()


def test_no_demo_leaves_it_empty_and_files_fill_it(home: str, tmp_path: Path) -> None:
    other = f"{home}/empty"
    server = Server("--no-demo", STOCKGRAPH_HOME=other)
    try:
        assert server.ask("{ groups { totalCount } }") == {"data": {"groups": {"totalCount": 0}}}
        (tmp_path / "etf_TWO.csv").write_text("symbol,name,weight\nAAPL,Apple,60\nMSFT,Microsoft,40\n")
        loaded = run("load", str(tmp_path / "etf_TWO.csv"), STOCKGRAPH_HOME=other)
        assert (loaded.returncode, loaded.stdout) == (
            0,
            "ETF TWO: 2 added (AAPL, MSFT); 0 unchanged\n1 groups read, 1 changed\n",
        )
        answer = {
            "data": {
                "group": {"members": {"nodes": [{"symbol": "AAPL", "weight": 0.6}, {"symbol": "MSFT", "weight": 0.4}]}}
            }
        }
        assert server.ask('{ group(name: "TWO") { members { nodes { symbol weight } } } }') == answer
    finally:
        server.stop()


async def test_a_database_that_somebody_emptied_gets_no_demo(home: str, tmp_path: Path) -> None:
    other = f"{home}/empty"
    # of a name that the demo has too, whose holdings are older than that there is none any more
    (tmp_path / "etf_SPY_2020-01-01.csv").write_text("symbol,weight\nAAPL,1\n")
    assert run("load", str(tmp_path), STOCKGRAPH_HOME=other).returncode == 0
    with embedded_postgres(Path(other)) as url:
        connection = await asyncpg.connect(url)
        await connection.execute("DELETE FROM definition_groups")
        await connection.close()
    server = Server(STOCKGRAPH_HOME=other)
    try:
        assert server.ask("{ groups { totalCount } }") == {"data": {"groups": {"totalCount": 0}}}
    finally:
        assert "demo" not in server.stop()


def test_several_workers_serve_the_embedded_database(home: str) -> None:
    server = Server("--workers", "2", STOCKGRAPH_HOME=home)
    assert server.ask("{ groups { totalCount } }") == {"data": {"groups": {"totalCount": 55}}}
    server.stop()
    assert server.process.returncode == 0
    assert postmaster(home) is None


def test_every_worker_answers_for_the_hosts_and_origins_that_it_was_told(market_url: str) -> None:
    origin = "https://dash.example.com"
    server = Server(
        *("--workers", "2", "--allow-host", "stocks.example.com", "--allow-host", "a.example", "--cors", origin),
        DATABASE_URL=market_url,
        STOCKGRAPH_ALLOW_HOST="unread.example",
    )
    url = f"http://127.0.0.1:{server.port}/graphql"
    hosts = {"localhost": 200, "stocks.example.com": 200, "a.example:80": 200, "unread.example": 421, "10.0.0.1": 421}
    # each time another connection, so that both workers are asked
    for _ in range(10):
        for host, status in hosts.items():
            answer = httpx2.post(url, json={"query": "{ __typename }"}, headers={"host": host, "origin": origin})
            assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, origin)
    server.stop()


def test_a_taken_port_is_said_before_anything_is_started(home: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = run("serve", "--port", str(port), STOCKGRAPH_HOME=f"{home}/never")
    assert refused.returncode == 1
    assert re.fullmatch(
        rf"error: Cannot listen on 127\.0\.0\.1 port {port}: .*; choose others with --host, --port\.\n", refused.stderr
    )
    assert not Path(f"{home}/never").exists()


def test_serve_never_alters_a_database_that_is_named(bare_url: str) -> None:
    refused = run("serve", "--port", str(free_port()), DATABASE_URL=bare_url)
    assert (refused.returncode, refused.stderr) == (
        1,
        "error: The database of DATABASE_URL lacks tables; `stockgraph init` makes them.\n",
    )


def test_init_makes_what_is_missing_and_again_nothing(bare_url: str) -> None:
    made = run("init", DATABASE_URL=bare_url)
    assert made.returncode == 0
    assert {
        "made table definition_groups",
        "made table data_change",
        "made trigger data_change_update on symbols",
    } <= set(made.stdout.splitlines())
    again = run("init", DATABASE_URL=bare_url)
    assert (again.returncode, again.stdout) == (0, "Nothing was missing.\n")


async def test_init_only_adds_to_a_database_of_the_predecessor(bare_url: str) -> None:
    connection = await asyncpg.connect(bare_url)
    await connection.execute((ROOT / "tests" / "data" / "predecessor.sql").read_text())
    before = await connection.fetch(COLUMNS)
    served = Server(DATABASE_URL=bare_url)
    try:
        query = (
            '{ universe(key: "SPY:dow30") { symbols } group(name: "SPY") { performance(windows: [DAY]) { change priced } }'
            " status { generation listener { mode } universes { entries } prices { entries } } }"
        )
        answer = {
            "data": {
                "universe": {"symbols": ["AAPL", "IBM", "MSFT"]},
                "group": {"performance": [{"change": 0.1, "priced": 1}]},
                "status": {
                    "generation": "untracked",
                    "listener": {"mode": "OFF"},
                    "universes": {"entries": 0},
                    "prices": {"entries": 0},
                },
            }
        }
        assert served.ask(query) == answer
        made = run("init", DATABASE_URL=bare_url)
        assert (made.returncode, made.stderr) == (0, "")
        assert [line for line in made.stdout.splitlines() if "table" in line] == [
            "made table data_change",
            "made table group_history",
            "made table membership_history",
        ]
        assert await connection.fetch(COLUMNS) == before

        def followed() -> bool:
            return served.ask("{ status { listener { mode } } }") == {
                "data": {"status": {"listener": {"mode": "NOTIFY"}}}
            }

        until(followed)
    finally:
        printed = served.stop()
    await connection.close()
    assert (
        "WARNING: Nothing is cached, and every answer is read from the database: changes of definition_groups,"
        " group_memberships, symbols and 1 more are not recorded; `stockgraph init` adds what records them."
    ) in printed.splitlines()


COLUMNS = """SELECT table_name::text, column_name::text, data_type::text, numeric_precision, numeric_scale
             FROM information_schema.columns WHERE table_schema = 'public' AND table_name !~ 'data_change|_history|ohlcv' ORDER BY 1, ordinal_position"""


async def test_load_keeps_to_what_the_predecessors_tables_take(bare_url: str, tmp_path: Path) -> None:
    connection = await asyncpg.connect(bare_url)
    await connection.execute((ROOT / "tests" / "data" / "predecessor.sql").read_text())
    (tmp_path / "etf_SPY.csv").write_text("symbol,name,weight\nAAPL,Apple Inc.,0.99996\nTINY,Tiny Corp.,0.00004\n")
    (tmp_path / "universe_sp500.csv").write_text("symbol,name,weight\nAAPL,Apple Inc.,\n")
    loaded = run("load", str(tmp_path), "--json", DATABASE_URL=bare_url)
    report = json.loads(loaded.stdout)
    assert loaded.returncode == 1
    (diff,) = report["groups"]
    assert (diff["added"], diff["removed"], diff["reweighted"], diff["zeroed"]) == (
        ["TINY"],
        ["MSFT"],
        [{"symbol": "AAPL", "old": 0.07, "new": 1.0}],
        ["TINY"],
    )
    (error,) = report["errors"]
    assert "definition_groups_type_check" in error
    assert "UNIVERSE" in error
    assert loaded.stderr == f"error: {error}\n"
    again = json.loads(run("load", str(tmp_path / "etf_SPY.csv"), "--json", DATABASE_URL=bare_url).stdout)
    assert again["groups"][0]["unchanged"] == 2
    assert await connection.fetch("SELECT symbol, name FROM symbols ORDER BY symbol") == [
        ("AAPL", "Apple Inc."),
        ("MSFT", "Microsoft"),
    ]
    await connection.close()


def test_load_shows_what_would_change_and_changes_nothing(market_url: str, tmp_path: Path) -> None:
    (tmp_path / "etf_TECH.csv").write_text("symbol,name,weight\nNVDA,NVIDIA,0.5\nAAPL,Apple,0.35\nIBM,IBM,0.15\n")
    for arguments in (["--dry-run"], []):
        shown = run("load", str(tmp_path), *arguments, DATABASE_URL=market_url)
        would = "1 would change; a dry run, nothing was written" if arguments else "1 changed"
        assert shown.stdout.splitlines() == [
            "ETF TECH: 1 added (IBM); 2 removed (AMD, MSFT); 1 reweighted (NVDA 0.40000000 -> 0.50000000); 1 unchanged",
            f"1 groups read, {would}",
        ]
    again = run("load", str(tmp_path), DATABASE_URL=market_url)
    assert again.stdout.splitlines() == ["ETF TECH: 3 unchanged", "1 groups read, 0 changed"]


def test_load_names_a_bad_row_and_that_file_changes_nothing(market_url: str, tmp_path: Path) -> None:
    (tmp_path / "etf_TECH.csv").write_text("symbol,name,weight\nNVDA,NVIDIA,0.5\nAAPL,Apple,a lot\n")
    (tmp_path / "theme_chips.csv").write_text("symbol,name,weight\nNVDA,NVIDIA,\n")
    loaded = run("load", str(tmp_path), DATABASE_URL=market_url)
    assert loaded.returncode == 1
    assert loaded.stdout.splitlines() == ["THEME chips: 1 removed (AMD); 1 unchanged", "1 groups read, 1 changed"]
    assert "etf_TECH.csv" in loaded.stderr
    assert "line 3" in loaded.stderr
    assert "a lot" in loaded.stderr
    assert run("query", "TECH", DATABASE_URL=market_url).stdout.split() == ["AAPL", "AMD", "MSFT", "NVDA"]


PRICES = "symbol,date,open,high,low,close,volume\nIBM,2024-03-01,1,1,1,1,1\nXOM,2024-03-04,2,2,2,2,2\nXOM,2024-03-05,2,2,2,,2\n"
TOLD = {
    "files": 1, "rows": 2, "symbols": {"total": 2, "first": ["IBM", "XOM"]}, "first": "2024-03-01", "last": "2024-03-04",
    "added": 0, "changed": 0, "unchanged": 2, "left_out": 1,
}  # fmt: skip


def test_load_takes_prices_with_groups_and_alone(market_url: str, tmp_path: Path) -> None:
    (tmp_path / "groups.csv").write_text("name,type,file\nchips,THEME,theme_chips.csv\n")
    (tmp_path / "theme_chips.csv").write_text("symbol,weight\nAMD,\nNVDA,\n")
    (tmp_path / "prices.csv").write_text(PRICES)
    line = "prices: 2 bars of 2 symbols (IBM, XOM), 2024-03-01 to 2024-03-04: {}, 1 rows without a close left out"
    for arguments, written in ((["--dry-run"], "; a dry run, nothing was written"), ([], "")):
        shown = run("load", str(tmp_path), *arguments, DATABASE_URL=market_url)
        would = "would change" if arguments else "changed"
        assert (shown.returncode, shown.stderr, shown.stdout.splitlines()[1:]) == (
            0,
            "",
            [f"1 groups read, 0 {would}{written}", line.format("2 added, 0 changed, 0 unchanged") + written],
        )
    (tmp_path / "XOM.csv").write_text("Date,Close\n2024-03-04,3\n2024-03-05,0\n")
    again = run("load", str(tmp_path / "prices.csv"), str(tmp_path / "XOM.csv"), DATABASE_URL=market_url)
    reason = f"{tmp_path}/XOM.csv, line 3: close '0' is not a price above 0 such as 179.66."
    assert (again.returncode, again.stdout, again.stderr) == (
        1,
        line.format("0 added, 0 changed, 2 unchanged") + "\n",
        f"error: {reason}\n",
    )
    document = run("load", str(tmp_path / "prices.csv"), "--json", DATABASE_URL=market_url).stdout
    assert json.loads(document) == {"groups": [], "prices": TOLD, "notes": [], "errors": []}
    document = run("load", str(tmp_path / "theme_chips.csv"), "--json", DATABASE_URL=market_url).stdout
    assert json.loads(document)["prices"] is None


def test_prices_load_into_the_embedded_database_by_a_stated_symbol(home: str, tmp_path: Path) -> None:
    (tmp_path / "download.csv").write_text("Date,Close/Last,Volume\n03/04/2024,$1.50,N/A\n")
    loaded = run("load", str(tmp_path / "download.csv"), "--name", "brk-b", STOCKGRAPH_HOME=home)
    assert (
        loaded.stdout
        == "prices: 1 bars of 1 symbols (BRK.B), 2024-03-04 to 2024-03-04: 1 added, 0 changed, 0 unchanged\n"
    )
    typed = run("load", str(tmp_path / "download.csv"), "--name", "x", "--type", "ETF", STOCKGRAPH_HOME=home)
    assert (typed.returncode, typed.stdout, typed.stderr) == (
        1,
        "",
        f"error: {tmp_path}/download.csv: holds prices, so it takes no --type.\n",
    )


async def test_a_load_of_prices_that_is_interrupted_changes_nothing(database_url: str, tmp_path: Path) -> None:
    rows = "".join(f"S{n},2024-03-01,1\n" for n in range(400_000))
    (tmp_path / "ohlcv.csv").write_text(f"symbol,date,close\n{rows}")
    process = start("load", str(tmp_path), DATABASE_URL=database_url)
    connection = await asyncpg.connect(database_url)
    copying = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'COPY%'"
    while not await connection.fetchval(copying):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    printed = process.communicate(timeout=30)
    assert (process.returncode, printed) == (130, (b"", b""))
    assert await connection.fetchval("SELECT count(*) FROM ohlcv_daily") == 0
    await connection.close()


async def test_the_old_table_moves_and_again_changes_nothing(bare_url: str, database_url: str, tmp_path: Path) -> None:
    def migrate(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return run("migrate-cache-entries", *arguments, DATABASE_URL=database_url)

    refused = migrate()
    assert (refused.returncode, refused.stdout, refused.stderr) == (
        1,
        "",
        "error: The database has no table cache_entries; name the address of another database, or a JSON file.\n",
    )
    connection = await asyncpg.connect(bare_url)
    await connection.execute((ROOT / "tests" / "data" / "cache_entries.sql").read_text())
    rows = await connection.fetchval("SELECT json_agg(t) FROM cache_entries AS t")
    await connection.close()
    dia = "gives ETF DIA as etf_holdings 'DIA' (id 1) does, which was updated later and has other members"
    left = f"""\
left: etf_holdings 'IWM' (id 3): has no members; an empty group is not made
left: theme_definition 'space' (id 16): is text that is not JSON ('RKLB, ASTS': Expecting value)
left: theme_definition 'space' (id 17): environment 'PRODUCTION' is none of DEFAULT, TEST, UAT, PROD
left: etf_holdings 'dia' (id 15): {dia}
left: 2 of type 'app_settings', which holds no groups
left: 1 of type 'stock_metadata', which holds no groups
"""
    moved = migrate(bare_url)
    assert (moved.returncode, moved.stderr) == (1, "")
    assert (
        moved.stdout
        == f"""\
ETF DIA: 3 members moved from etf_holdings 'DIA' (id 1)
ETF QQQ: 2 members moved from etf_holdings 'qqq' (id 2)
THEME crypto_miners: 2 members moved from theme_definition 'crypto_miners' (id 4)
THEME crypto_miners of TEST: 1 members moved from theme_definition 'crypto_miners' (id 5)
SECTOR information_technology: 2 members moved from sector_industry_map 'information_technology' (id 6)
UNIVERSE dow30: 2 members moved from stock_universe 'dow30' (id 7)
    member 3 left out: AAPL is member 1 too
UNIVERSE theme_crypto: 2 members moved from stock_universe 'theme_crypto' (id 8)
UNIVERSE top_2: 2 members moved from stock_universe 'top_2' (id 9)
    of members only symbol, weight, name and industry are kept, not 'exchange', 'rank', 'sector'
UNIVERSE top_1: 1 members moved from etf_universe 'top_1' (id 10)
    of members only symbol, weight, name and industry are kept, not 'issuer', 'rank'
UNIVERSE etf_theme_crypto: 2 members moved from etf_universe 'theme_crypto' (id 11)
    a stock_universe has the key theme_crypto too, so its name is etf_theme_crypto
THEME ai: 2 members moved from themes 'Ai' (id 12)
UNIVERSE ai: 2 members moved from stock_universe 'ai' (id 13)
UNIVERSE mixed: 2 members moved from stock_etf_combo 'mixed' (id 14)
{left}13 moved, 0 here already, 4 left, 3 of other types
"""
    )
    again = migrate(bare_url)
    assert (again.returncode, again.stdout.splitlines()[-1]) == (
        1,
        "0 moved, 13 here already, 4 left, 3 of other types",
    )
    (tmp_path / "old.json").write_text(rows)
    exported = migrate(str(tmp_path / "old.json"))
    assert (exported.returncode, exported.stdout) == (1, again.stdout)
    assert run("query", "DIA&dow30", DATABASE_URL=database_url).stdout == "AAPL\nIBM\n"


def test_a_file_of_entries_moves_into_the_embedded_database(home: str, tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text('{"theme_definition": {"chips": ["NVDA"]}}')
    for line in ("1 moved, 0 here already", "0 moved, 1 here already"):
        moved = run("migrate-cache-entries", str(tmp_path / "old.json"), STOCKGRAPH_HOME=home)
        assert (moved.returncode, moved.stderr) == (0, "")
        assert moved.stdout.splitlines()[-1] == f"{line}, 0 left, 0 of other types"
    assert run("query", "chips", STOCKGRAPH_HOME=home).stdout == "NVDA\n"


LIST = "Ticker,Name,Weight\nNVDA,NVIDIA,{}\nCASH,US DOLLAR,{}\n"


def test_load_takes_the_files_of_several_days_one_after_another(database_url: str, tmp_path: Path) -> None:
    for day, weight in (("2025-10-04", 99), ("2025-06-05", 98)):
        (tmp_path / f"qqq_{day}.csv").write_text(LIST.format(weight, 100 - weight))
    left_out = "ETF QQQ: 1 rows that are no members left out: CASH (cash)"
    for arguments in (["--dry-run"], []):
        shown = run("load", str(tmp_path), *arguments, DATABASE_URL=database_url)
        assert (shown.stderr, shown.stdout.splitlines()[:4]) == (
            "",
            [
                left_out,
                "ETF QQQ as of 2025-06-05: 1 added (NVDA); 0 unchanged",
                left_out,
                "ETF QQQ as of 2025-10-04: 1 reweighted (NVDA 0.98000000 -> 0.99000000); annotated anew; 0 unchanged",
            ],
        )
    again = run("load", str(tmp_path), "--json", DATABASE_URL=database_url)
    printed = json.loads(again.stdout)
    reason = (
        "ETF QQQ: the holdings are of 2025-06-05, older than what is here (2025-10-04);"
        " --as-of 2025-10-04 or later takes them as of then."
    )
    assert (again.returncode, again.stderr, printed["errors"]) == (1, f"error: {reason}\n", [reason])
    (diff,) = printed["groups"]
    assert (diff["as_of"], diff["unchanged"]) == ("2025-10-04", 1)
    assert diff["left_out"] == [{"line": 3, "ticker": "CASH", "name": "US DOLLAR", "weight": 0.01, "reason": "cash"}]
    later = run("load", str(tmp_path / "qqq_2025-10-04.csv"), "--as-of", "2025-10-05", DATABASE_URL=database_url)
    assert later.stdout.splitlines()[1:] == [
        "ETF QQQ as of 2025-10-05: annotated anew; 1 unchanged",
        "1 groups read, 1 changed",
    ]


def test_load_prints_whole_json_also_where_the_database_is_gone(tmp_path: Path) -> None:
    (tmp_path / "etf_A.csv").write_text("symbol,weight\nA,1\n")
    loaded = run("load", str(tmp_path), "--json", DATABASE_URL="postgresql://u@127.0.0.1:1/x")
    gone = "The database does not answer; try again when it is back."
    assert (loaded.returncode, loaded.stderr) == (1, f"error: {gone}\n")
    assert json.loads(loaded.stdout) == {"groups": [], "prices": None, "notes": [], "errors": [gone]}


def in_shell(redirected: str, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run the command as a shell does, redirected; the exit code is the command's also in front of a pipe."""
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", f'"$@" {redirected}', "bash", sys.executable, "-m", "graph", *arguments],
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        stdin=subprocess.DEVNULL,
    )


NOBODY = ["| true", "| head -n 1 >/dev/null", ">&-", ">&- 2>&-", "2>&1 | true"]


@pytest.mark.parametrize("redirected", NOBODY)
def test_commands_end_as_ever_where_nobody_reads(market_url: str, tmp_path: Path, redirected: str) -> None:
    (tmp_path / "entries.json").write_text('{"theme_definition": {"moved": ["NVDA"]}}')
    for arguments, code in (
        (["query", "top3"], 0),
        (["query", "{ status { version } }", "--json"], 0),
        (["explain", "top3"], 0),
        (["check"], 1),
        (["init"], 0),
        (["migrate-cache-entries", str(tmp_path / "entries.json")], 0),
        (["export-schema"], 0),
        (["--help"], 0),
        (["load", "--help"], 0),
        (["--version"], 0),
    ):
        done = in_shell(redirected, *arguments, DATABASE_URL=market_url)
        assert (arguments, done.returncode, done.stdout, done.stderr) == (arguments, code, "", "")


@pytest.mark.parametrize("redirected", NOBODY)
def test_load_goes_on_where_nobody_reads(market_url: str, tmp_path: Path, redirected: str) -> None:
    for name in ("A", "B", "C"):
        (tmp_path / f"etf_{name}.csv").write_text("symbol,weight\nX,1\n")
    done = in_shell(redirected, "load", str(tmp_path), DATABASE_URL=market_url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert run("query", "A&B&C", DATABASE_URL=market_url).stdout == "X\n"


def test_serve_goes_on_where_nobody_reads(market_url: str) -> None:
    server = Server(DATABASE_URL=market_url)
    assert server.process.stdout
    server.process.stdout.close()
    server.process.stdout = None
    sent = httpx2.post(
        f"http://127.0.0.1:{server.port}/graphql", json={"query": "{ groups { totalCount } }"}, timeout=30
    )
    assert sent.status_code == 200
    assert server.ask('{ universe(key: "top3") { size } }') == {"data": {"universe": {"size": 3}}}
    server.stop()
    assert server.process.returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no disk that is always full")
def test_a_full_disk_is_an_error_and_what_is_to_be_loaded_is_loaded(market_url: str, tmp_path: Path) -> None:
    for name in ("A", "B"):
        (tmp_path / f"etf_{name}.csv").write_text("symbol,weight\nX,1\n")
    full = "error: Standard output is incomplete: No space left on device.\n"
    done = in_shell(">/dev/full", "load", str(tmp_path), DATABASE_URL=market_url)
    assert (done.returncode, done.stderr) == (1, full)
    assert run("query", "A&B", DATABASE_URL=market_url).stdout == "X\n"
    for arguments in (["query", "A"], ["export-schema"], ["--help"]):
        done = in_shell(">/dev/full", *arguments, DATABASE_URL=market_url)
        assert (arguments, done.returncode, done.stderr) == (arguments, 1, full)


def test_a_pipe_that_does_not_block_gets_everything(market_url: str) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    process = subprocess.Popen(
        [sys.executable, "-m", "graph", "export-schema"],
        env=environment(DATABASE_URL=market_url),
        stdin=subprocess.DEVNULL,
        stdout=writing,
        stderr=subprocess.PIPE,
    )
    os.close(writing)
    # more than a pipe holds is left to wait
    until(lambda: Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "S")
    with os.fdopen(reading, "rb") as pipe:
        printed = pipe.read()
    assert process.communicate(timeout=60)[1] == b""
    assert (process.returncode, printed.decode()) == (0, (ROOT / "schema.graphql").read_text())


def test_a_line_is_printed_when_its_group_is_loaded_and_errors_stand_after_what_they_follow(
    market_url: str, tmp_path: Path
) -> None:
    (tmp_path / "etf_A.csv").write_text("symbol,weight\nX,1\n")
    (tmp_path / "etf_B.csv").write_text("symbol,weight\nX,a lot\n")
    done = in_shell("2>&1", "load", str(tmp_path), DATABASE_URL=market_url)
    assert done.stdout.splitlines()[:2] == ["ETF A: 1 added (X); 0 unchanged", "1 groups read, 1 changed"]
    (error,) = done.stdout.splitlines()[2:]
    assert error.startswith(f"error: {tmp_path / 'etf_B.csv'}")


def test_a_name_that_the_terminal_cannot_write_is_written_by_number(market_url: str, tmp_path: Path) -> None:
    (tmp_path / "etf_Q.csv").write_text("symbol,name,weight\nX,Łódź 株式,1\n")
    assert run("load", str(tmp_path), DATABASE_URL=market_url).returncode == 0
    query = '{ stock(symbol: "X") { name } }'
    done = in_shell("| iconv -f latin1", "query", query, "--json", DATABASE_URL=market_url, PYTHONIOENCODING="latin-1")
    assert (done.returncode, done.stdout) == (0, '{"data":{"stock":{"name":"\\u0141\xf3d\\u017a \\u682a\\u5f0f"}}}\n')


def test_load_draws_how_far_it_is_on_a_terminal_and_prints_to_where_it_is_told(
    database_url: str, tmp_path: Path
) -> None:
    # a name that the markup of the terminal would trip over
    file = tmp_path / "theme_[or].csv"
    file.write_text("symbol,weight\n" + "".join(f"S{n},\n" for n in range(6_000)))
    terminal, end = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "graph", "load", str(file), "--json"],
        env=environment(DATABASE_URL=database_url, TERM="xterm", COLUMNS="300"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=end,
    )
    os.close(end)
    drawn = bytearray()
    assert process.stdout
    with process.stdout, ThreadPoolExecutor(1) as reader:
        printed = reader.submit(process.stdout.read)
        # of a terminal whose other end is closed no more can be read
        with suppress(OSError):
            while part := os.read(terminal, 4096):
                drawn += part
        document = json.loads(printed.result())
    os.close(terminal)
    assert process.wait(timeout=60) == 0
    assert f"Reading {file}".encode() in drawn
    assert b"Merging THEME or" in drawn
    assert document["groups"][0]["totals"]["added"] == 6_000


def test_query_prints_symbols_json_or_an_answer(market_url: str) -> None:
    assert run("query", "(TECH:top3)-chips", DATABASE_URL=market_url).stdout == "AAPL\nMSFT\n"
    printed = run("query", "top3", "--json", DATABASE_URL=market_url).stdout
    assert json.loads(printed) == {"key": "top3", "size": 3, "symbols": ["AAPL", "MSFT", "NVDA"]}
    printed = run("query", '{ stock(symbol: "xom") { symbol } }', DATABASE_URL=market_url).stdout
    assert printed == '{\n  "data": {\n    "stock": {\n      "symbol": "XOM"\n    }\n  }\n}\n'
    assert run("query", "top3-top3", DATABASE_URL=market_url, CACHE_URL="").stdout == ""
    elsewhere = run("query", "BIG", DATABASE_URL=market_url, STOCKGRAPH_ENVIRONMENT="TEST")
    assert elsewhere.stdout == "AAPL\n"


def test_explain_draws_the_plan_the_statements_and_the_cost(market_url: str) -> None:
    query = (
        """query ($n: Int) { group(name: "BIG", type: ETF) { members(first: $n) { nodes { stock { symbol } } } } }"""
    )
    done = run("explain", query, "--variables", '{"n": 2}', DATABASE_URL=market_url)
    assert done.returncode == 0
    assert re.sub(r"\d+\.\d ms", "- ms", done.stdout) == (
        'group(name: "BIG", type: ETF)              1 Group                 cost 1  groups_named (1 key)\n'
        "  members(first: 2, orderBy: WEIGHT_DESC)  1 MembershipConnection  cost 3  members_by_weight (1 key)\n"
        "    nodes                                  2 Membership\n"
        "      stock                                2 Stock\n"
        "        symbol                             2 String\n"
        "\n"
        "groups_named       1 row  - ms\n"
        "members_by_weight  1 row  - ms\n"
        "\n"
        "cost: 4 of 100,000 objects\n"
    )


def test_explain_tells_what_falls_back_and_why_before_the_error(market_url: str) -> None:
    done = run("explain", "BIG:nope", DATABASE_URL=market_url)
    reason = "There is no group nope; `groups` lists those there are."
    assert (done.returncode, done.stderr) == (1, f"error: {reason}\n")
    assert done.stdout.startswith(
        f"universe  falls back: universe: UnknownGroup ({reason})\nby graphql-core: group_names (1 key)\n\n"
    )


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["{ nothing }"], "error: Cannot query field 'nothing' on type 'Query'."),
        (["mutation { write }"], "error: Only queries are explained, since explaining runs them."),
        (["SPY", "--variables", "3"], 'error: --variables: \'3\' is no JSON object, such as {"key": "SPY"}.'),
        (["SPY", "--variables", "{"], 'error: --variables: \'{\' is no JSON object, such as {"key": "SPY"}.'),
    ],
)
def test_what_cannot_be_explained_is_one_line(market_url: str, arguments: list[str], line: str) -> None:
    done = run("explain", *arguments, DATABASE_URL=market_url)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", line + "\n")


def test_what_a_person_did_wrong_is_one_line_and_an_exit_code(market_url: str) -> None:
    away = urlsplit(market_url)._replace(path="/nowhere").geturl()
    for arguments, variables, code, line in (
        (["query", "TECHS"], {}, 1, "error: There is no group TECHS; did you mean TECH or chips?"),
        (["query", "TECH:"], {}, 1, "error: The key 'TECH:' misses a group's name (at character 6)."),
        (["query", "{ nothing }"], {}, 1, "error: Cannot query field 'nothing' on type 'Query'."),
        (
            ["query", "TECH"],
            {"DATABASE_URL": away},
            1,
            'error: The database takes no connection: database "nowhere" does not exist.',
        ),
        (
            ["query", "TECH"],
            {"DATABASE_URL": "mysql://x"},
            1,
            "error: DATABASE_URL is not of the form postgresql://user:password@host/database.",
        ),
        (
            ["query", "TECH"],
            {"DATABASE_URL": "postgresql://u:s3cret@127.0.0.1:1/x"},
            1,
            "error: The database does not answer; try again when it is back.",
        ),
        (["load", "/no/such/file.csv"], {}, 1, None),
        (
            ["query", "TECH"],
            {"DATABASE_URL": "postgresql://u:s3cret@h:port/x"},
            1,
            "error: DATABASE_URL is not of the form postgresql://user:password@host/database.",
        ),
        (
            ["query", "TECH"],
            {"CACHE_URL": "redis://:s3cret@h:99999"},
            1,
            "error: CACHE_URL is not of the form redis://user:password@host:6379/0.",
        ),
    ):
        done = run(*arguments, **{"DATABASE_URL": market_url, **variables})
        assert (done.returncode, done.stdout) == (code, ""), done.stderr
        assert done.stderr.count("\n") == 1
        assert "s3cret" not in done.stderr
        assert line is None or done.stderr == f"{line}\n"


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [
        (["serf"], {}),
        (["serve", "--port", "x"], {}),
        (["serve", "--workers", "0"], {}),
        (["load"], {}),
        (["query"], {}),
        (["check", "--environment", "MOON"], {}),
        (["check"], {"STOCKGRAPH_DATA_CACHE": "maybe"}),
        (["check", "--time-zone", "Mars/Olympus"], {}),
    ],
)
def test_a_wrong_usage_is_exit_code_2(market_url: str, arguments: list[str], variables: dict[str, str]) -> None:
    done = run(*arguments, DATABASE_URL=market_url, **variables)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"error: [^\n]+ `stockgraph --help` tells more\.\n", done.stderr)


DEPRECATED = "WARNING: {} is deprecated and will be removed in 0.2.0; use {}.\n"


@pytest.mark.parametrize(
    ("arguments", "variables", "warned"),
    [
        (["--memo", "off"], {}, [("--memo", "--data-cache")]),
        (["--answers=on"], {}, [("--answers", "--response-cache")]),
        ([], {"STOCKGRAPH_MEMO": "off"}, [("STOCKGRAPH_MEMO", "STOCKGRAPH_DATA_CACHE")]),
        ([], {"STOCKGRAPH_ANSWERS": "off"}, [("STOCKGRAPH_ANSWERS", "STOCKGRAPH_RESPONSE_CACHE")]),
        (["--memo", "maybe", "--data-cache", "on"], {}, [("--memo", "--data-cache")]),
        ([], {"STOCKGRAPH_MEMO": "", "STOCKGRAPH_ANSWERS": ""}, []),
    ],
)
def test_deprecated_settings_work_with_a_warning(
    market_url: str, arguments: list[str], variables: dict[str, str], warned: list[tuple[str, str]]
) -> None:
    done = run("query", "top3", *arguments, DATABASE_URL=market_url, **variables)
    assert (done.returncode, done.stdout) == (0, "AAPL\nMSFT\nNVDA\n")
    assert done.stderr == "".join(DEPRECATED.format(*names) for names in warned)


@pytest.mark.parametrize(
    ("arguments", "variables", "warned"),
    [
        (["--memo", "maybe"], {}, ("--memo", "--data-cache")),
        ([], {"STOCKGRAPH_ANSWERS": "maybe"}, ("STOCKGRAPH_ANSWERS", "STOCKGRAPH_RESPONSE_CACHE")),
    ],
)
def test_wrong_values_of_deprecated_settings_are_told_under_the_new_name(
    market_url: str, arguments: list[str], variables: dict[str, str], warned: tuple[str, str]
) -> None:
    done = run("check", *arguments, DATABASE_URL=market_url, **variables)
    assert (done.returncode, done.stdout) == (2, "")
    warning, error = done.stderr.splitlines(keepends=True)
    assert warning == DEPRECATED.format(*warned)
    assert error.startswith(f'error: Invalid value "maybe" for {warned[1]}')


def test_a_server_takes_deprecated_settings(market_url: str) -> None:
    server = Server("--answers", "off", DATABASE_URL=market_url, STOCKGRAPH_MEMO="off")
    for _ in range(2):
        assert server.ask('{ universe(key: "top3") { size } }') == {"data": {"universe": {"size": 3}}}
    status = server.ask("{ status { answers { entries misses } universes { entries misses } } }")
    assert status == {"data": {"status": {each: {"entries": 0, "misses": 0} for each in ("answers", "universes")}}}
    output = server.stop()
    assert output.startswith(
        DEPRECATED.format("STOCKGRAPH_MEMO", "STOCKGRAPH_DATA_CACHE")
        + DEPRECATED.format("--answers", "--response-cache")
    )
    assert output.count("deprecated") == 2


async def test_check_exits_with_1_where_there_is_a_fault(market_url: str) -> None:
    done = run("check", DATABASE_URL=market_url)
    assert done.returncode == 1
    assert done.stdout.splitlines()[0] == "fault: SEGMENT nothing yet has no members."
    assert done.stdout.splitlines()[-1] == "1 faults, 1 warnings"


async def test_check_says_what_makes_the_tables(bare_url: str) -> None:
    done = run("check", DATABASE_URL=bare_url)
    assert (done.returncode, done.stderr) == (
        1,
        'error: The database lacks tables (relation "definition_groups" does not exist); `stockgraph init` makes what is missing.\n',
    )


def test_the_schema_that_is_exported_is_the_one_that_is_committed() -> None:
    assert run("export-schema").stdout == (ROOT / "schema.graphql").read_text()


def test_help_teaches_every_command() -> None:
    overview = run("--help").stdout
    for command in ("serve", "init", "load", "query", "explain", "check", "export-schema", "migrate-cache-entries"):
        assert command in overview
        shown = run(command, "--help")
        assert shown.returncode == 0
        assert not re.search(r"--(memo|answers)\b|_(MEMO|ANSWERS)\b", shown.stdout)
    assert "stockgraph query 'SPY:QQQ'" in run("query", "--help").stdout
    assert run("--version").stdout.strip()
