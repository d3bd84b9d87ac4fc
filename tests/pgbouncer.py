"""pgbouncer, for tests of what works through a connection pooler."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def until(holds: Callable[[], bool], limit: float = 30) -> None:
    deadline = time.monotonic() + limit
    while not holds():
        assert time.monotonic() < deadline, "it never came to hold"
        time.sleep(0.005)


class Pgbouncer:
    """A pgbouncer in transaction mode before a server: its clients share fewer connections than they are."""

    def __init__(self, folder: Path, server_url: str) -> None:
        parts = urlsplit(server_url)
        asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
        host = asked.get("host", parts.hostname or "127.0.0.1")
        server = {
            "host": host,
            "port": asked.get("port", parts.port),
            "user": parts.username,
            "password": parts.password and unquote(parts.password),
        }
        entry = " ".join(f"{name}='{text}'" for name, text in server.items() if text)
        self.port = free_port()
        self._user = parts.username
        self._settings = folder / "pgbouncer.ini"
        self._settings.write_text(
            f"[databases]\n* = {entry}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\n"
            "unix_socket_dir =\nauth_type = any\npool_mode = transaction\ndefault_pool_size = 4\nserver_login_retry = 0.2\n"
        )
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            # it refuses to run as root, and the folder of a socket may be closed to all but its owner
            account = Path(host).owner() if host[0] == "/" else "nobody"
            self._as = {"user": account, "group": pwd.getpwnam(account).pw_gid, "extra_groups": []}
        self.start()

    def url(self, database_url: str) -> str:
        """The address of a database through it."""
        return f"postgresql://{self._user}@127.0.0.1:{self.port}{urlsplit(database_url).path}"

    def start(self) -> None:
        assert PGBOUNCER
        self._process = subprocess.Popen(
            [PGBOUNCER, "--quiet", self._settings],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **self._as,
        )

        def listens() -> bool:
            assert self._process.poll() is None, "pgbouncer does not start"
            with socket.socket() as client:
                return client.connect_ex(("127.0.0.1", self.port)) == 0

        until(listens)

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
