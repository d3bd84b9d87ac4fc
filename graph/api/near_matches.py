"""Near matches of a misspelled name, from an index of trigrams: in bounded time, however many names there are."""

from collections.abc import Sequence
from difflib import SequenceMatcher

import numpy as np
import numpy.typing as npt

MAX_CHARACTERS = 2_000_000
"""Characters of the names in one index, which takes 12 bytes for each; names beyond them are not found."""
MAX_NAME = 60
"""Characters of a name that are compared."""
CANDIDATES = 16
"""Number of names that share most with the one asked for; these are compared letter by letter."""
MIN_SHARED = 0.45
"""Share of trigrams and letters (Dice's coefficient) from which on a name is near."""
MIN_RATIO = 0.6
"""Ratio of `difflib.SequenceMatcher` from which on it is near too."""

_BUCKETS = 1 << 16
_BLANK = ord(" ")
_FACTORS = np.uint32(0x9E3779B1), np.uint32(0x85EBCA77), np.uint32(0xC2B2AE3D)


class NameIndex:
    """The trigrams and letters of many names; case is ignored."""

    def __init__(self, names: Sequence[str]) -> None:
        folded = list(map(_fold, names))
        lengths = np.array(list(map(len, folded)), np.int64)
        count = int(np.searchsorted(np.cumsum(lengths), MAX_CHARACTERS, side="right"))
        self._names, self._folded, lengths = names[:count], folded[:count], lengths[:count]
        owners = np.repeat(np.arange(count, dtype=np.int32), lengths)
        trigrams, letters = _grams("".join(self._folded) + "  ")
        # the last two trigrams of a name would reach into the next
        within = np.ones(len(owners), bool)
        ends = np.cumsum(lengths)
        within[ends - 1] = within[ends - 2] = False
        words = letters[:-2] != _BLANK
        self._grams = np.concatenate([trigrams[within], letters[:-2][words]])
        self._owners = np.concatenate([owners[within], owners[words]])
        self._sizes = np.bincount(self._owners, minlength=count)

    def near(self, name: str, most: int) -> list[str]:
        """Return the names that are nearest to a name, nearest first."""
        asked = _fold(name)
        trigrams, letters = _grams(asked)
        grams = np.concatenate([trigrams, letters[letters != _BLANK]])
        present = np.zeros(_BUCKETS, bool)
        present[grams] = True
        counts = np.bincount(self._owners[present[self._grams]], minlength=len(self._sizes))
        # what a name repeats counts once at most for each gram of the other
        shared = 2 * np.minimum(counts, len(grams)) / (self._sizes + len(grams))
        best = np.argsort(-shared, kind="stable")[:CANDIDATES]
        ratios = {
            index: SequenceMatcher(None, asked.strip(), self._folded[index].strip(), autojunk=False).ratio()
            for index in best
        }
        near = [index for index in best if shared[index] >= MIN_SHARED or ratios[index] >= MIN_RATIO]
        return [self._names[index] for index in sorted(near, key=lambda index: -ratios[index])[:most]]


def _fold(name: str) -> str:
    """Return a name as it is compared, between blanks that make its beginning count more."""
    return f"  {name.casefold()[:MAX_NAME]} "


def _grams(text: str) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint16]]:
    """Return a number for each three letters in a row, and for each letter."""
    code = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    first, second, third = (code[place : len(code) - 2 + place] * factor for place, factor in enumerate(_FACTORS))
    return ((first ^ second ^ third) >> np.uint32(16)).astype(np.uint16), code.astype(np.uint16)
