"""Asks the tokenizers library about every code point, and writes what it says as tables in C.

python tables.py > unicode_tables.h

So the example's ids are those of the library, whatever version of Unicode each of its parts has.
"""

from __future__ import annotations

import itertools
import sys
import unicodedata
from collections.abc import Callable, Iterator

from tokenizers import normalizers, pre_tokenizers

# The bits of unicode.h.
DROPPED, BERT_SPACE, SEPARATOR, PUNCTUATION, LETTER, DIGIT, SPACE, CHINESE, STRIPPED = (
    1 << bit for bit in range(9)
)
COMBINING = 16
HANGUL = range(0xAC00, 0xD7A4)
SURROGATES = range(0xD800, 0xE000)
ALL = [code for code in range(sys.maxunicode + 1) if code not in SURROGATES]
LONGEST = 3
WIDTH = 110
Normalize = Callable[[str], str]


def bert(**steps: bool) -> Normalize:
    """A normalizer of BERT's that does some of its steps alone."""
    none = dict.fromkeys(
        ("clean_text", "handle_chinese_chars", "strip_accents", "lowercase"), False
    )
    return normalizers.BertNormalizer(**{**none, **steps}).normalize_str


CLEAN, SPREAD = bert(clean_text=True), bert(handle_chinese_chars=True)
STRIP, LOWER = bert(strip_accents=True), bert(lowercase=True)
WORDS = pre_tokenizers.BertPreTokenizer().pre_tokenize_str
PARTS = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str


def classes_of(code: int) -> int:
    """The bits of a code point."""
    c = chr(code)
    cleaned = CLEAN(c)
    found = DROPPED * (cleaned == "") | BERT_SPACE * (cleaned == " ")
    words = len(WORDS(f"a{c}a"))
    found |= {1: 0, 2: SEPARATOR, 3: PUNCTUATION}[words]
    found |= CHINESE * (SPREAD(c) != c)
    found |= unicodedata.combining(c) << COMBINING if STRIP(c) else STRIPPED
    if len(PARTS(f"a{c}")) == 1:
        return found | LETTER
    if len(PARTS(f"1{c}")) == 1:
        return found | DIGIT
    return found | SPACE * (len(PARTS(f".{c}")) > 1)


def ranges() -> Iterator[tuple[int, int, int]]:
    """First and last code point with the same bits, and these."""
    first, bits = 0, classes_of(0)
    for before, code in itertools.pairwise(ALL):
        found = classes_of(code)
        if found != bits or code != before + 1:
            if bits:
                yield first, before, bits
            first, bits = code, found
    if bits:
        yield first, ALL[-1], bits


def changed(normalize: Normalize) -> dict[int, str]:
    """What each code point becomes that does not stay as it is."""
    found = {code: normalize(chr(code)) for code in ALL if code not in HANGUL}
    return {code: text for code, text in found.items() if text and text != chr(code)}


def shifts(mapping: dict[int, str]) -> Iterator[tuple[int, int, int, int]]:
    """Runs of code points that become themselves plus one number."""
    left = dict(mapping)
    while left:
        first = min(left)
        plus = ord(left[first]) - first
        best = [first]
        for step in (1, 2):
            run = [first]
            while (code := run[-1] + step) in left and ord(left[code]) - code == plus:
                run.append(code)
            best = max(best, run, key=len)
        for code in best:
            del left[code]
        yield best[0], best[-1], best[1] - best[0] if len(best) > 1 else 1, plus


def mappings(mapping: dict[int, str]) -> Iterator[str]:
    """Rows of a table of texts."""
    for code, text in sorted(mapping.items()):
        if len(text) > LONGEST:
            raise ValueError(f"U+{code:04X} becomes {len(text)} code points")
        yield f"{{0x{code:X}, {{{', '.join(f'0x{ord(c):X}' for c in text)}}}}}"


def table(kind: str, name: str, rows: Iterator[str]) -> None:
    """Print a table, several rows a line."""
    print(f"\nstatic const {kind} {name}[] = {{")
    line = "   "
    for row in rows:
        if len(line) + len(row) > WIDTH:
            print(line)
            line = "   "
        line += f" {row},"
    print(f"{line}\n}};")


def main() -> None:
    """Print the tables."""
    lower = changed(LOWER)
    many = {code: text for code, text in lower.items() if len(text) > 1}
    one = {code: text for code, text in lower.items() if len(text) == 1}
    print("// Written by tables.py; do not change it by hand.")
    table("Range", "classes", (f"{{0x{a:X}, 0x{b:X}, {c}}}" for a, b, c in ranges()))
    rows = (f"{{0x{a:X}, 0x{b:X}, {s}, {p}}}" for a, b, s, p in sorted(shifts(one)))
    table("Shift", "lowercase", rows)
    table("Mapping", "lowercase_many", mappings(many))
    table("Mapping", "stripped", mappings(changed(STRIP)))


if __name__ == "__main__":
    main()
