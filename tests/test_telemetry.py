"""An observer is told of every request, statement, batch and cache event."""

from collections import Counter

import httpx2
from conftest import serving

from graph.app import create_app
from graph.settings import Settings
from graph.telemetry import CacheEvent, Observer

QUERY = '{ stock(symbol: "AAPL") { memberships(type: ETF) { weight } } universe(key: "top3") { size } }'


class Recorder(Observer):
    """Keeps all that it is told."""

    def __init__(self) -> None:
        self.requests: list[int] = []
        self.statements: Counter[str] = Counter()
        self.batches: dict[str, tuple[int, int]] = {}
        self.events: Counter[tuple[str, CacheEvent]] = Counter()

    def request(self, status: int, seconds: float) -> None:
        assert seconds > 0
        self.requests.append(status)

    def statement(self, name: str, seconds: float, rows: int) -> None:
        assert seconds > 0
        assert rows >= 0
        self.statements[name] += 1

    def batch(self, statement: str, keys: int, attempts: int) -> None:
        self.batches[statement] = keys, attempts

    def cache(self, name: str, event: CacheEvent, count: int) -> None:
        self.events[name, event] += count


def test_an_observer_sees_requests_statements_batches_and_caches(market_url: str) -> None:
    recorder = Recorder()
    with serving(create_app(Settings(database_url=market_url), recorder)) as url:
        # the first request may come before the generation is confirmed
        for _ in range(500):
            if recorder.events["responses", "hit"]:
                break
            assert httpx2.post(f"{url}/graphql", json={"query": QUERY}).status_code == 200
        assert httpx2.post(f"{url}/graphql", json={"query": QUERY + " "}).status_code == 200
        assert httpx2.post(f"{url}/graphql", content=b"no JSON").status_code == 415
    assert set(recorder.requests[:-1]) == {200}
    assert recorder.requests[-1] == 415
    assert {"stocks", "stock_memberships", "group_names", "group_symbols", "tracking"} <= set(recorder.statements)
    assert recorder.batches["stocks"] == (1, 1)
    for name in ("responses", "columns", "universes", "group_names"):
        assert recorder.events[name, "miss"] >= 1, name
    # the same question in other words is answered from columns
    assert recorder.events["columns", "hit"] >= 2


def test_an_observer_that_overrides_nothing_is_told_without_effect(market_url: str) -> None:
    with serving(create_app(Settings(database_url=market_url), Observer())) as url:
        answer = httpx2.post(f"{url}/graphql", json={"query": QUERY}).json()
    assert answer == {"data": {"stock": {"memberships": [{"weight": 0.35}, {"weight": 0.3}]}, "universe": {"size": 3}}}
