"""What values take in memory."""

import sys
import tracemalloc
from array import array
from dataclasses import dataclass
from enum import Enum
from typing import Any

import pytest

from graph.caching.sizes import Sizer, allocated
from graph.model import Symbols


def texts(number: int) -> list[str]:
    return [f"a text of its own, number {each}" for each in range(number)]


@dataclass
class Plain:
    """An object whose attributes stand apart from it."""

    name: str
    of: Any


class Directory(tuple[str, ...]):  # noqa: SLOT001 - it has attributes
    """A sequence that holds more than its items."""

    by_length: dict[str, str]


def directory() -> Directory:
    made = Directory(texts(1_000))
    made.by_length = {text + "!": text for text in made}
    return made


class Colour(Enum):
    """Members that are there anyway."""

    RED = "red"


def closure(held: Any) -> Any:
    return lambda: held


@pytest.mark.parametrize(
    "make",
    [
        lambda: texts(10),
        lambda: texts(5_000),
        lambda: tuple(texts(5_000)),
        lambda: [Plain(text, Colour.RED) for text in texts(2_000)],
        lambda: {text: [text, 1.5] for text in texts(2_000)},
        lambda: [texts(3) for _ in range(2_000)],
        lambda: array("d", range(5_000)),
        lambda: closure(texts(1_000)),
        directory,
        lambda: b"x" * 100_000,
    ],
)
def test_it_is_what_the_interpreter_allocates(make: Any) -> None:
    make()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        value = make()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert Sizer()(value) == pytest.approx(after - before, rel=0.2)


def test_what_others_hold_does_not_count() -> None:
    text = "x" * 1_000
    plain = Sizer()
    assert plain([text, text]) == plain([text]) + allocated(sys.getsizeof([1, 2])) - allocated(sys.getsizeof([1]))
    assert plain(text, apart_from=[id(text)]) == 0
    assert plain(Colour.RED, None, 7, Sizer, sys) == 0
    assert Sizer(Plain)([Plain(text, None)]) == allocated(sys.getsizeof([1]))
    symbols = Symbols.of(texts(100))
    assert plain(symbols) == allocated(sys.getsizeof(symbols))
    assert Symbols.of(texts(100))[3] is symbols[3]
    assert (symbols[1:3], type(symbols[1:3])) == (tuple(texts(100)[1:3]), Symbols)
