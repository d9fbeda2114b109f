"""Cuts a bundle's vocabulary to the tokens that a corpus, a list or any text can need."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from fmrt.bundle.bundle import Bundle, Reference
from fmrt.bundle.manifest import REFERENCE_FILE, Manifest, TextInput
from fmrt.embedding.engine import Engine
from fmrt.errors import ExportError, OptionError, said
from fmrt.export.package.tokenizer import closed, cut, unreachable, vocabulary
from fmrt.export.quantize.items import own_items
from fmrt.export.writing.reference import write_references
from fmrt.preprocess import TOKENIZER_FILE

Report = Callable[[str], None]
# Texts that are compared with the whole bundle, and reference texts whose tokens are always kept.
COMPARED, FEWEST_REFERENCES = 256, 6
BATCH = 1024
# Vectors are the same when no component differs by more: ids alone changed.
SAME = 1e-6
# Of config.json: ids of special tokens.
IDS = "_token_id"


@dataclass(frozen=True)
class Wanted:
    """What a vocabulary is to hold; without a file, all that texts can need."""

    file: Path | None

    def lines(self) -> list[str]:
        """The file's lines, blank ones left out.

        Raises:
            OptionError: It cannot be read, or is empty.
        """
        if self.file is None:
            return []
        try:
            text = self.file.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as e:
            raise OptionError(
                f"--vocabulary {str(self.file)!r} cannot be read: {said(e)}; give a text or a "
                "token a line, in UTF-8"
            ) from e
        found = [line for line in text.split("\n") if line.strip()]
        if not found:
            raise OptionError(f"--vocabulary {str(self.file)!r} is empty; give a text a line")
        return [line.removesuffix("\r") for line in found]


@dataclass(frozen=True)
class Cut:
    """A vocabulary that was cut.

    Attributes:
        kept: The old ids that are kept, ascending; a new id is a place here.
        size: The number of tokens before the cut.
        data: The new content of ``tokenizer.json``.
        reference: The reference texts that need no dropped token.
        texts: The texts to compare with the whole bundle.
        lossless: Whether no text can need what was dropped.
    """

    kept: Sequence[int]
    size: int
    data: dict[str, Any]
    reference: Reference
    texts: list[str]
    lossless: bool

    def write(self, manifest: Manifest, folder: Path) -> Manifest:
        """Write the tokenizer and what goes with its ids; the manifest with these."""
        new = {old: i for i, old in enumerate(self.kept)}
        text = json.dumps(self.data, ensure_ascii=False, separators=(",", ":"))
        (folder / TOKENIZER_FILE).write_text(text, encoding="utf-8")
        towers = []
        for tower in manifest.towers:
            spec = tower.input
            if isinstance(spec, TextInput):
                pad = new.get(spec.pad_token_id, 0)
                spec = dataclasses.replace(spec, pad_token_id=pad, vocab_size=None)
            towers.append(dataclasses.replace(tower, input=spec))
        _write_reference(manifest, folder, towers, self.reference)
        for name in ("config.json", "tokenizer_config.json"):
            _renumber_file(folder / name, new)
        return dataclasses.replace(manifest, towers=tuple(towers))


def cut_vocabulary(bundle: Bundle, wanted: Wanted, say: Report) -> Cut | None:
    """Choose the tokens to keep; None where there are none to drop.

    Raises:
        OptionError: The bundle embeds no texts, or the file cannot be used.
        ExportError: The tokenizer is of an unknown kind.
    """
    if "text" not in bundle.manifest.modalities:
        if wanted.file is not None:
            raise OptionError(f"--vocabulary is for texts, and {bundle.path} embeds none")
        return None
    raw = bundle.file(TOKENIZER_FILE).read_bytes()
    data, tokenizer = json.loads(raw), Tokenizer.from_buffer(raw)
    tokenizer.no_padding()
    tokenizer.enable_truncation(bundle.manifest.text.max_length)
    if wanted.file is None:
        dropped = unreachable(data, tokenizer) - {bundle.manifest.text.pad_token_id}
        if not dropped:
            return None
        texts = [str(text) for text in own_items("text").held_out]
        needed = set(vocabulary(data).values()) - dropped
    else:
        texts, needed = _needed(bundle, wanted, data, tokenizer)
    reference = bundle.reference("text")
    of_reference = _ids(tokenizer, list(map(str, reference.items)), reference.prompts)
    for row in _always(reference):
        needed |= of_reference[row]
    kept = closed(data, needed | {bundle.manifest.text.pad_token_id})
    size = len(set(vocabulary(data).values()))
    say(f"keeping {len(kept):,} of {size:,} tokens")
    rows = [row for row, ids in enumerate(of_reference) if ids <= set(kept)]
    return Cut(
        kept, size, cut(data, kept), _rows(reference, rows), texts, lossless=wanted.file is None
    )


def _needed(
    bundle: Bundle, wanted: Wanted, data: dict[str, Any], tokenizer: Tokenizer
) -> tuple[list[str], set[int]]:
    """Texts to compare, and the ids that a file needs: of texts, or tokens themselves."""
    lines, tokens = wanted.lines(), vocabulary(data)
    if all(line in tokens for line in lines):
        return [str(t) for t in own_items("text").held_out], {tokens[line] for line in lines}
    prompts = dict.fromkeys(["", *bundle.manifest.text.prompts.values()])
    found: set[int] = set()
    for start in range(0, len(lines), BATCH):
        part = lines[start : start + BATCH]
        for prompt in prompts:
            found.update(*_ids(tokenizer, part, [prompt] * len(part)))
    return lines, found


def _ids(tokenizer: Tokenizer, texts: Sequence[str], prompts: Sequence[str]) -> list[set[int]]:
    joined = [prompt + text for prompt, text in zip(prompts, texts, strict=True)]
    return [set(encoding.ids) for encoding in tokenizer.encode_batch(joined)]


def _always(reference: Reference) -> list[int]:
    """Reference texts that stay: the shortest that are not blank, and one with each prompt."""
    order = np.argsort(reference.lengths, kind="stable")
    rows = [int(row) for row in order if str(reference.items[row]).strip()]
    with_prompts = {reference.prompts[row]: row for row in reversed(rows)}
    return [*rows[:FEWEST_REFERENCES], *with_prompts.values()]


def _rows(reference: Reference, rows: Sequence[int]) -> Reference:
    return Reference(
        [reference.items[row] for row in rows],
        [reference.prompts[row] for row in rows],
        reference.lengths[list(rows)],
        reference.embeddings[list(rows)],
    )


def _write_reference(
    manifest: Manifest, folder: Path, towers: Sequence[Any], reference: Reference
) -> None:
    bundle = Bundle(folder, manifest)
    references = {tower.modality: bundle.reference(tower.modality) for tower in manifest.towers}
    heads = {head.task: bundle.head_reference(head) for head in manifest.heads}
    write_references({**references, "text": reference}, heads, towers, folder / REFERENCE_FILE)


def _renumber_file(path: Path, new: dict[int, int]) -> None:
    """Put new ids into a configuration that other libraries read."""
    if not path.is_file():
        return
    values = json.loads(path.read_bytes())
    for holder in (values, values.get("text_config") or {}):
        for key, value in holder.items():
            if key.endswith(IDS) and type(value) is int and value in new:
                holder[key] = new[value]
        if "vocab_size" in holder:
            holder["vocab_size"] = len(new)
    added = values.get("added_tokens_decoder")
    if isinstance(added, dict):
        values["added_tokens_decoder"] = {
            str(new[int(i)]): token for i, token in added.items() if int(i) in new
        }
    path.write_text(json.dumps(values, ensure_ascii=False, separators=(",", ":")), "utf-8")


def same_vectors(source: Bundle, made: Bundle, cut_: Cut, say: Report) -> None:
    """Compare a package with the whole bundle on texts that need no dropped token.

    Raises:
        ExportError: A vector is another.
    """
    texts = cut_.texts
    old, new = (Tokenizer.from_buffer(b.file(TOKENIZER_FILE).read_bytes()) for b in (source, made))
    kept = set(cut_.kept)
    whole = [text for text in texts if set(old.encode(text).ids) <= kept]
    _count(texts, whole, old, new, made, say)
    texts = whole[:: max(1, len(whole) // COMPARED)]
    variants = [v for v in made.manifest.variants if v.modality == "text"]
    for variant in (v for v in variants if v.provider in ("any", "cpu")):
        vectors = []
        for bundle in (source, made):
            engine = Engine(bundle, variant.name, modality="text")
            try:
                vectors.append(engine.vectors(texts))
            finally:
                engine.close()
        worst = float(np.abs(vectors[0] - vectors[1]).max(initial=0.0))
        if not worst <= SAME * max(1.0, float(np.abs(vectors[0]).max(initial=0.0))):
            raise ExportError(
                f"{variant.name} with the cut vocabulary gives other vectors (by {worst:.2g}) for "
                "texts that need no dropped token: the graph uses token ids for more than its table"
            )
        say(f"verified {variant.name}: {len(texts)} texts have the whole bundle's vectors")


def _count(
    texts: Iterable[str],
    whole: Sequence[str],
    old: Tokenizer,
    new: Tokenizer,
    made: Bundle,
    say: Report,
) -> None:
    """Say how many texts need a dropped token, and how many tokens are unknown now."""
    texts = list(texts)
    unknown = json.loads(made.file(TOKENIZER_FILE).read_bytes())["model"].get("unk_token")
    before, after = (
        sum(encoding.tokens.count(unknown) for encoding in tokenizer.encode_batch(texts))
        for tokenizer in (old, new)
    )
    say(
        f"of {len(texts):,} texts, {len(texts) - len(whole):,} need a dropped token; unknown "
        f"tokens: {after:,}, {before:,} with all tokens"
    )
