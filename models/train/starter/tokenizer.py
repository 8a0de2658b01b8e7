"""CLIP's byte-pair encoding, and the compact row numbers that training uses.

`vocab.json` and `merges.txt` come from `npx tsx vocabulary.ts`. Only rows of words that occur in captions are
trained; all other ids share row 0 ("unknown") until `pack.py` writes them out.
"""
from __future__ import annotations

import html
import json
import unicodedata
from functools import lru_cache
from pathlib import Path

BOS, EOS, LENGTH = 49406, 49407, 77
_CONTRACTIONS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")


def _byte_symbols() -> dict[int, str]:
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {b: chr(b) for b in printable}
    for n, b in enumerate(b for b in range(256) if b not in table):
        table[b] = chr(256 + n)
    return table


def split(text: str) -> list[str]:
    """Contractions, runs of letters, single digits, runs of anything else (white space separates)."""
    out, i = [], 0
    letter = lambda c: unicodedata.category(c)[0] == "L"
    number = lambda c: unicodedata.category(c)[0] == "N"
    while i < len(text):
        c = text[i]
        if c.isspace():
            i += 1
            continue
        contraction = next((k for k in _CONTRACTIONS if text.startswith(k, i)), None)
        if contraction:
            out.append(contraction)
        elif letter(c):
            j = i
            while j < len(text) and letter(text[j]):
                j += 1
            out.append(text[i:j])
        elif number(c):
            out.append(c)
        else:
            j = i
            while j < len(text) and not (text[j].isspace() or letter(text[j]) or number(text[j])):
                j += 1
            out.append(text[i:j])
        i += len(out[-1])
    return out


class Tokenizer:
    def __init__(self, folder: str | Path):
        folder = Path(folder)
        self.vocabulary: dict[str, int] = json.loads((folder / "vocab.json").read_text())
        lines = (folder / "merges.txt").read_text().split("\n")[1:]
        self.rank = {tuple(line.split(" ")): i for i, line in enumerate(lines) if line}
        self.symbols = _byte_symbols()
        self.piece = lru_cache(100_000)(self._piece)

    def _piece(self, word: str) -> tuple[int, ...]:
        parts = [self.symbols[b] for b in word.encode()]
        parts[-1] += "</w>"
        while len(parts) > 1:
            best = min(zip(parts, parts[1:]), key=lambda p: self.rank.get(p, 1 << 30))
            if best not in self.rank:
                break
            merged, i = [], 0
            while i < len(parts):
                if i + 1 < len(parts) and (parts[i], parts[i + 1]) == best:
                    merged.append(parts[i] + parts[i + 1])
                    i += 2
                else:
                    merged.append(parts[i])
                    i += 1
            parts = merged
        return tuple(self.vocabulary[p] for p in parts)

    def encode(self, text: str) -> list[int]:
        clean = " ".join(html.unescape(html.unescape(text)).split()).lower()
        return [i for word in split(clean) for i in self.piece(word)]

    def padded(self, text: str) -> list[int]:
        ids = [BOS, *self.encode(text)[: LENGTH - 2], EOS]
        return ids + [EOS] * (LENGTH - len(ids))


class Rows:
    """Token ids <-> rows of the compact embedding. Row 0 stands for every word training has not seen."""

    def __init__(self, ids: list[int]):
        self.ids = ids
        self.row = {t: i + 1 for i, t in enumerate(ids)}

    def __len__(self) -> int:
        return len(self.ids) + 1

    def of(self, ids: list[int]) -> list[int]:
        return [self.row.get(i, 0) for i in ids]


def grammar_rows(tokenizer: Tokenizer) -> Rows:
    """All tokens the caption grammar can produce, at any level, so that widening the level keeps the row numbers."""
    from . import caption as c
    from . import scene as s

    words: list[str] = [",", "a", "an", "and", "of", "in", "with", "wearing", "dressed in", *c.SIZE_WORDS, *c.NUMBER.values()]
    for table in (c.SPECIES, c.OUTFIT, c.WORN, c.POSE, c.COLOUR, c.PLACE, c.PLACE_TAG, c.TIME, c.TIME_TAG, c.WEATHER, c.STYLE):
        words += [w for options in table.values() for w in options]
    words += [w for verbs, noun in c.HELD.values() for w in (*verbs, noun)]
    words += [*s.HEADS, *s.CREATURES, *s.FUR, *s.CLOTH, "style of", "illustration of"]
    seen = dict.fromkeys([BOS, EOS])
    for w in words:
        seen.update(dict.fromkeys(tokenizer.encode(w)))
    return Rows(list(seen))
