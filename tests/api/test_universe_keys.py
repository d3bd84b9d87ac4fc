"""Universe keys: the grammar against a model of sets, and the canonical form's laws."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graph.api.universe_keys import (
    Expression,
    GroupRef,
    Name,
    canonicalize,
    evaluate,
    leaves,
    parse,
    render,
    write_name,
)
from graph.errors import InvalidKey, LimitExceeded

NAMES = ["SPY", "QQQ", "dow 30", "a:b", 'q"q', "energy"]
MEMBERS = {
    index: frozenset(symbol for bit, symbol in enumerate("ABCDEFGH") if (index * 37 + 11) >> bit & 1)
    for index in range(len(NAMES))
}


def resolve(key: str) -> Expression:
    tree = parse(key)
    return canonicalize(
        tree,
        {
            part: GroupRef(write_name(part.name), NAMES.index(part.name))
            for part in leaves(tree)
            if isinstance(part, Name)
        },
    )


blank = st.sampled_from(["", " ", "\t "])
leaf = st.sampled_from(range(len(NAMES))).map(lambda index: (write_name(NAMES[index]), MEMBERS[index], 0))


def _joined(
    children: st.SearchStrategy[tuple[str, frozenset[str], int]],
) -> st.SearchStrategy[tuple[str, frozenset[str], int]]:
    """Join terms by one sign; the third value is how loosely a text binds: 0 a name or parentheses, 1 a chain, 2 a union."""

    @st.composite
    def join(draw: st.DrawFn) -> tuple[str, frozenset[str], int]:
        sign = draw(st.sampled_from([":", "&", "-"]))
        left, members, loose = draw(children)
        text, found = (left if loose <= (2 if sign == ":" else 1) else f"({left})"), members
        for right, more, looseness in draw(st.lists(children, min_size=1, max_size=3)):
            written = right if looseness <= (1 if sign == ":" else 0) else f"({right})"
            text += draw(blank) + sign + draw(blank) + written
            found = {":": found | more, "&": found & more, "-": found - more}[sign]
        wrapped = draw(st.booleans())
        return (f"( {text})", found, 0) if wrapped else (text, found, 2 if sign == ":" else 1)

    return join()


keys = st.recursive(leaf, _joined, max_leaves=12)


@given(keys)
def test_a_key_is_the_set_that_its_signs_make(key: tuple[str, frozenset[str], int]) -> None:
    text, expected, _ = key
    assert evaluate(resolve(text), MEMBERS) == expected


@given(keys)
def test_the_canonical_form_is_a_key_of_the_same_form(key: tuple[str, frozenset[str], int]) -> None:
    expression = resolve(key[0])
    assert resolve(render(expression)) == expression


@given(st.lists(keys, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_order_and_repetition_in_a_union_mean_nothing(
    terms: list[tuple[str, frozenset[str], int]], random: Random
) -> None:
    texts = [f"({text})" for text, _, _ in terms]
    shuffled = [*texts, texts[0]]
    random.shuffle(shuffled)
    assert resolve(":".join(texts)) == resolve(" : ".join(shuffled))


@pytest.mark.parametrize(
    ("key", "form"),
    [
        ("SPY:QQQ:SPY", "QQQ:SPY"),
        (" QQQ :\tSPY ", "QQQ:SPY"),
        ("((SPY))", "SPY"),
        ("SPY&QQQ-energy", "QQQ&SPY-energy"),
        ("SPY-energy&QQQ", "QQQ&SPY-energy"),
        ("SPY-(QQQ:energy)", "SPY-QQQ-energy"),
        ("SPY-(QQQ&energy)", "SPY-(QQQ&energy)"),
        ("(SPY-energy)&(QQQ:energy)", "(QQQ:energy)&SPY-energy"),
        ('"dow 30":"a:b":"q""q"', '"a:b":"dow 30":"q""q"'),
    ],
)
def test_the_canonical_form(key: str, form: str) -> None:
    assert render(resolve(key)) == form


def test_a_type_stands_before_its_name_in_any_case() -> None:
    assert list(leaves(parse('sector/energy:ETF/"a b"'))) == [Name("SECTOR", "energy"), Name("ETF", "a b")]


@pytest.mark.parametrize(
    ("key", "problem", "position", "length"),
    [
        ("", "is empty", 1, 0),
        ("   ", "is empty", 4, 0),
        ("SPY:", "misses a group's name", 5, 0),
        (":SPY", "misses a group's name", 1, 1),
        ("SPY::QQQ", "misses a group's name", 5, 1),
        ("SPY&-QQQ", "misses a group's name", 5, 1),
        ("SPY QQQ", "needs one of : & - between two names; a name with white space goes in double quotes", 5, 3),
        ("(SPY", "misses a closing parenthesis", 5, 0),
        ("SPY)", "closes a parenthesis that was not opened", 4, 1),
        ("()", "misses a group's name", 2, 1),
        ("SPY(QQQ)", "needs one of : & - between two names; a name with white space goes in double quotes", 4, 1),
        (
            'SPY:"QQQ',
            'has a double quote that is never closed or holds nothing; write " twice for one within a name',
            5,
            4,
        ),
        ('""', 'has a double quote that is never closed or holds nothing; write " twice for one within a name', 1, 2),
        ("ETF/", "misses a group's name", 5, 0),
        ("/SPY", "misses a group's name", 1, 1),
        ("ETF/B/C", "may write a type only before a name, as in SECTOR/energy", 6, 1),
        ('"ETF"/SPY', "has a quoted name before the slash, where only a type such as SECTOR may stand", 6, 1),
    ],
)
def test_a_broken_key_is_told_where(key: str, problem: str, position: int, length: int) -> None:
    with pytest.raises(InvalidKey) as caught:
        parse(key)
    assert str(caught.value) == f"The key {key!r} {problem} (at character {position})."
    place = {"position": position, "length": length}
    assert caught.value.extensions == {
        "code": "INVALID_KEY",
        **place,
        "parts": [{"code": "INVALID_KEY", **place}],
    }


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("A" * 4_001, "The key has 4,001 characters; a key may have 4,000."),
        (":".join(["A"] * 101), "The key names more than 100 groups."),
        ("(" * 21 + "A" + ")" * 21, "The key opens more than 20 parentheses within each other."),
    ],
)
def test_a_key_is_bounded(key: str, message: str) -> None:
    with pytest.raises(LimitExceeded) as caught:
        parse(key)
    assert str(caught.value) == message


@given(st.text(alphabet=' :&-()/"aB\n', max_size=30))
def test_any_text_is_a_key_or_says_where_it_is_not(text: str) -> None:
    try:
        parse(text)
    except InvalidKey as error:
        position, length = error.extensions["position"], error.extensions["length"]
        assert 1 <= position <= position + length <= len(text) + 1


@given(keys)
def test_each_name_is_where_it_says(key: tuple[str, frozenset[str], int]) -> None:
    text = key[0]
    for part in leaves(parse(text)):
        assert isinstance(part, Name)
        assert text[part.position - 1 : part.position - 1 + part.length] == write_name(part.name)
