"""A disk without room for PostgreSQL's write-ahead log."""

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from graph.postgres.embedded import _Cluster

HINT = "HINT:  This probably means that some data is corrupted and you will have to use the last backup for recovery."
INTERRUPTED = "LOG:  database system was interrupted while in recovery at 2026-11-29 10:00:00 UTC"
PANIC = 'could not write to file "pg_wal/xlogtemp.77": No space left on device'
STAMP = "2026-11-29 10:00:01.000 UTC [77] "


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder that may be a home."""
    with tempfile.TemporaryDirectory(prefix="stockgraph-disk-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder).resolve() / "home"


def failure(home: Path, *lines: str) -> str:
    cluster = _Cluster(home)
    cluster.log.write_text("".join(f"{STAMP}{line}\n" for line in lines))
    return str(cluster._failure("does not start", 1))  # noqa: SLF001 - PostgreSQL cannot be made to write just this


@pytest.mark.parametrize("level", ["PANIC", "FATAL", "LOG"])
def test_the_error_leads_with_the_full_disk(home: Path, level: str) -> None:
    told = failure(home, INTERRUPTED, HINT, f"{level}:  {PANIC}", "FATAL:  could not begin")
    corrupted = HINT.removeprefix("HINT:  ")
    assert told == (
        f"PostgreSQL does not start in {home}: {PANIC}; {corrupted} (exit status 1; see {home}/postgresql.log)."
    )


def test_another_cause_stands_as_it_is(home: Path) -> None:
    told = failure(home, "FATAL:  could not begin", "DETAIL:  It is late.")
    assert told == (
        f"PostgreSQL does not start in {home}: could not begin; It is late. (exit status 1; see {home}/postgresql.log)."
    )


def test_a_full_disk_is_named_where_the_log_has_no_room_for_it(home: Path) -> None:
    home.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=711", "tmpfs", home]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        told = failure(home, INTERRUPTED, HINT)
    finally:
        subprocess.run(["umount", home], check=True)
    assert told.startswith(f"PostgreSQL does not start in {home}: No space left on device (")
