"""The shares of the caches."""

from conftest import Live

from graph.caching.memory import SHARES, share_of


def test_the_shares_are_all_of_the_memory() -> None:
    assert sum(SHARES.values()) == 100
    assert share_of(1_000, "prices") == 500


async def test_every_cache_has_a_share_and_its_status(live: Live) -> None:
    await live.ask('{ universe(key: "BIG") { size performance(windows: [DAY]) { members } } }')
    answer = await live.ask("""{ status { memory { bytes limit } prices { bytes } columns { bytes } universes { bytes } answers { bytes }
                 holdings { entries bytes } groupNames { entries bytes } documents { bytes } } }""")
    assert {spec.name for spec in live.runtime.data_caches} <= SHARES.keys()
    status = answer["data"]["status"]
    memory = status.pop("memory")
    assert memory["limit"] == 512 * 1024**2
    assert status["holdings"]["entries"] == status["groupNames"]["entries"] == 1
    assert 0 < sum(each["bytes"] for each in status.values()) == memory["bytes"]
