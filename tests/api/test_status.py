"""The status."""

from datetime import UTC, datetime, timedelta
from importlib.metadata import version

from conftest import Live, asker

from graph.execution.runtime import open_runtime
from graph.settings import Settings


async def test_the_status_of_a_server(live: Live) -> None:
    await live.ask('{ universe(key: "BIG") { size } }')
    await live.ask('{ universe(key: "big") { size } }')
    answer = await live.ask(
        """{ status { generation databaseTime version listener { mode confirmedAt reconnects }
             universes { entries bytes hits misses evictions } answers { entries bytes hits misses evictions } } }"""
    )
    status = answer["data"]["status"]
    for moment in (status.pop("databaseTime"), status["listener"].pop("confirmedAt")):
        assert moment.endswith("Z")
        assert abs(datetime.now(UTC) - datetime.fromisoformat(moment)) < timedelta(seconds=10)
    assert 100 < status["universes"].pop("bytes") < 2_000
    assert status == {
        "generation": str(await live.writer.fetchval("SELECT sum(weight) FROM data_change")),
        "version": version("stockgraph"),
        "listener": {"mode": "NOTIFY", "reconnects": 0},
        "universes": {"entries": 1, "hits": 1, "misses": 1, "evictions": 0},
        "answers": {"entries": 0, "bytes": 0, "hits": 0, "misses": 0, "evictions": 0},
    }


async def test_the_status_where_nobody_counts_changes(bare_url: str) -> None:
    async with open_runtime(Settings(database_url=bare_url), listen=False) as runtime:
        answer = await asker(runtime)("{ status { generation listener { mode confirmedAt } } }")
    assert answer == {"data": {"status": {"generation": "untracked", "listener": {"mode": "OFF", "confirmedAt": None}}}}
