"""The mapping that all caches are bounded by."""

from graph.caching.lru import LRU


def sizes(**bounds: int) -> LRU[str, int]:
    return LRU(lambda _, size: size, **bounds)


def test_the_least_recently_used_entries_are_evicted_until_the_bytes_fit() -> None:
    lru = sizes(max_bytes=10)
    assert [lru.store(key, size) for key, size in (("a", 4), ("b", 3), ("c", 3))] == [[], [], []]
    lru.move_to_end("a")
    assert lru.store("d", 5) == [("b", 3), ("c", 3)]
    assert (list(lru.items()), lru.bytes, lru.evictions) == ([("a", 4), ("d", 5)], 9, 2)


def test_an_entry_that_is_replaced_counts_once_and_is_the_most_recently_used() -> None:
    lru = sizes(max_bytes=10)
    lru.store("a", 4)
    lru.store("b", 4)
    assert lru.store("a", 6) == []
    assert (list(lru), lru.bytes, lru.evictions) == (["b", "a"], 10, 0)


def test_one_that_is_larger_than_the_bound_is_not_stored_and_evicts_no_other() -> None:
    lru = sizes(max_bytes=10)
    lru.store("a", 4)
    lru.store("b", 5)
    assert lru.store("b", 11) == [("b", 11)]
    assert (list(lru), lru.bytes, lru.evictions) == (["a"], 4, 1)


def test_entries_that_grow_evict_others() -> None:
    held = {"a": 4, "b": 4}
    lru: LRU[str, str] = LRU(lambda key, _: held[key], max_bytes=10)
    lru.store("a", "first")
    lru.store("b", "second")
    held["b"] += 3
    assert lru.grow(3) == [("a", "first")]
    assert (lru.bytes, list(lru)) == (7, ["b"])


def test_entries_are_bounded_in_number_too_and_clearing_is_no_eviction() -> None:
    lru = sizes(max_bytes=100, max_entries=2)
    for key in "abc":
        lru.store(key, 1)
    assert (list(lru), lru.evictions) == (["b", "c"], 1)
    lru.clear()
    assert (list(lru), lru.bytes, lru.evictions) == ([], 0, 1)
    lru.store("d", 1)
    assert lru.bytes == 1
