"""The example in C has fmrt's token ids and vectors, and says in one line what it cannot do."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors

import fmrt
from fmrt import Embedder
from fmrt.export.package import package_bundle
from tests.export.models import TINY, make_tokenizer, save_tiny

EXAMPLE = Path(__file__).parents[2] / "examples/c"
STRICT = "CFLAGS=-O1 -g -Wall -Wextra -pedantic -Werror"
TEXTS = [
    *("", " ", "\t", "hello world", "x" * 150, "many words " * 400, "\ufeffmark", "a\r b"),
    "SHOUTING, MiXeD 1234567890 !?.,;:-_()[]{}<>@#$%^&*~`|+= don't we'll I've 'S",
    "naïve café, Ångström, Straße, İstanbul, e\u0301, Σας, ǅ, 한국어, \u1100\u1161\u11a8",
    "日本語の文章。中文句子 and Предложение. هذه جملة. यह हिन्दी, ภาษาไทย",
    "emoji 😀 👩\u200d👩\u200d👧 zero\u200bwidth, no\u00a0break, soft\u00adhyphen \u3000 wide",
    "[SEP] inside [MASK] and [unused3] <s> and  <mask>  here",
]
PIECES = [
    *"aéßİ0 ,.'-_가日😀\u0301\u00a0",
    "  ",
    "the ",
    "don't",
    "[SEP]",
    "<mask> ",
    "ADDED",
    "12",
]
# The planes that have characters, and the first of those that have none.
ALL = [chr(c) for c in (*range(1, 0xD800), *range(0xE000, 0x32400), *range(0xE0000, 0xE0200))]
ALL.remove("\n")
TOGETHER = 64
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (shutil.which("cc") and shutil.which("make")), reason="no compiler of C here"
    ),
]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, built with ONNX Runtime's library from the registry."""
    folder = tmp_path_factory.mktemp("c") / "example"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("build"))
    make = ["make", "-C", str(folder), f"PYTHON={sys.executable}", STRICT]
    fetched = subprocess.run(
        [*make, "build/onnxruntime/capi"], capture_output=True, text=True, check=False, timeout=300
    )
    if fetched.returncode:
        pytest.skip(f"ONNX Runtime's package cannot be had here: {fetched.stderr[-200:]}")
    subprocess.run(make, check=True, capture_output=True, timeout=300)
    return folder / "build/embed"


@pytest.fixture(scope="module")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose tokenizer is a byte-level BPE."""
    folder = tmp_path_factory.mktemp("roberta")
    model = save_tiny(next(t for t in TINY if t.model_type == "roberta"), folder / "model")
    return fmrt.export_model(model, folder / "bundle").path


def run(program: Path, *arguments: object, texts: Sequence[str] = ()) -> list[dict[str, list]]:
    done = subprocess.run(
        [program, *map(str, arguments)],
        input="".join(f"{text}\n" for text in texts).encode(),
        capture_output=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def mixed(count: int) -> list[str]:
    """Texts of pieces that tokenizers treat in different ways."""
    chosen = random.Random(7)
    return ["".join(chosen.choices(PIECES, k=chosen.randrange(60))) for _ in range(count)]


@pytest.mark.parametrize("kind", ["minilm", "roberta"])
def test_ids_and_vectors_are_those_of_fmrt(
    program: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    bundle: Path = request.getfixturevalue(kind)
    compare(program, bundle, [*TEXTS, *mixed(200)])


def test_a_package_needs_no_unpacking(program: Path, roberta: Path, tmp_path: Path) -> None:
    made = package_bundle(roberta, tmp_path / "model.fmrt", single_file=True, variant="fp32-cpu")
    assert list(made.manifest.variants[0].external), "the weights are in the graph"
    compare(program, tmp_path / "model.fmrt", [*TEXTS, *mixed(20)])


def compare(program: Path, bundle: Path, texts: list[str]) -> None:
    with Embedder(bundle, variant="fp32-cpu") as embedder:
        expected = embedder.embed(texts, on_too_long="truncate")
        most = embedder.max_length
    found = run(program, bundle, "--truncate", texts=texts)
    assert [line["ids"] for line in found] == _ids(_tokenizer(bundle), texts, most)
    assert np.abs(np.array([line["vector"] for line in found]) - expected).max() < 1e-5


def _tokenizer(bundle: Path) -> Tokenizer:
    from fmrt.bundle.bundle import Bundle

    return Tokenizer.from_buffer(Bundle.open(bundle).file("tokenizer.json").read_bytes())


def _ids(tokenizer: Tokenizer, texts: Sequence[str], most: int) -> list[list[int]]:
    tokenizer.enable_truncation(most)
    tokenizer.no_padding()
    return [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]


def _bert(**normalizer: bool) -> Tokenizer:
    data = json.loads(make_tokenizer("wordpiece").backend_tokenizer.to_str())
    data["normalizer"] |= normalizer
    return Tokenizer.from_str(json.dumps(data))


def _bert_with_added() -> Tokenizer:
    tokenizer = _bert()
    tokenizer.add_tokens([AddedToken("ADDED", normalized=True), AddedToken("12", lstrip=True)])
    return tokenizer


def _bpe(prefix: bool = False, unknown: str | None = None, few: bool = False) -> Tokenizer:
    """Byte-level BPE; of a few bytes where the others are unknown."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    alphabet = [c for c in alphabet if not few or c.isascii() or c == "Ġ"]
    tokens = [*alphabet, "th", "Ġth", "the", "Ġthe", "<s>", "</s>", "<unk>"]
    merges = [("t", "h"), ("Ġ", "th"), ("th", "e"), ("Ġth", "e")]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    ends = [(token, vocabulary[token]) for token in ("</s>", "<s>")]
    tokenizer.post_processor = processors.RobertaProcessing(*ends)
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    return tokenizer


@pytest.mark.parametrize(
    "tokenizer",
    [
        pytest.param(_bert, id="bert"),
        pytest.param(lambda: _bert(strip_accents=False, clean_text=False), id="accents"),
        pytest.param(_bert_with_added, id="added"),
        pytest.param(lambda: _bpe(prefix=True, few=True), id="missing"),
        pytest.param(lambda: _bpe(few=True, unknown="<unk>"), id="unknown"),
    ],
)
def test_every_code_point_has_the_ids_of_the_library(
    program: Path, minilm: Path, tokenizer: object, tmp_path: Path
) -> None:
    """The committed tables are those of the installed library."""
    made: Tokenizer = tokenizer()  # type: ignore[operator]
    made.save(str(tmp_path / "tokenizer.json"))
    manifest = json.loads((minilm / "fmrt.json").read_text())
    manifest["towers"][0]["input"]["max_length"] = most = 1 << 20
    (tmp_path / "fmrt.json").write_text(json.dumps(manifest))
    parts = [ALL[first : first + TOGETHER] for first in range(0, len(ALL), TOGETHER)]
    texts = ["".join(f"a{c}b {c}1.{c} " for c in part) for part in parts]
    texts += [*TEXTS, *mixed(500)]
    found = run(program, tmp_path, "--ids", texts=texts)
    assert [line["ids"] for line in found] == _ids(made, texts, most)


def test_bad_input_is_one_line(program: Path, minilm: Path, roberta: Path, tmp_path: Path) -> None:
    def said(*arguments: object, line: bytes = b"") -> str:
        command = [program, *map(str, arguments)]
        done = subprocess.run(command, input=line, capture_output=True, check=False, timeout=100)
        assert (done.returncode, done.stderr.count(b"\n")) == (1, 1), done
        assert done.stderr.startswith(b"embed: ")
        return done.stderr.decode()

    def changed(name: str, value: object, file: str = "fmrt.json", at: str = "") -> Path:
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        shutil.copytree(roberta, folder)
        data = json.loads((folder / file).read_text())
        inner = data
        for key in at.split("/") if at else ():
            inner = inner[int(key) if key.isdigit() else key]
        inner[name] = value
        (folder / file).write_text(json.dumps(data))
        return folder

    packed = package_bundle(roberta, tmp_path / "m.fmrt", single_file=True).path
    cut = tmp_path / "cut.fmrt"
    cut.write_bytes(packed.read_bytes()[:-100])
    unigram = tmp_path / "unigram"
    shutil.copytree(roberta, unigram)
    make_tokenizer("unigram").backend_tokenizer.save(str(unigram / "tokenizer.json"))
    assert "No such file" in said(tmp_path / "absent")
    assert "neither a bundle's folder nor a whole .fmrt file" in said(cut)
    assert "no variant fp64" in said(roberta, "fp64")
    assert "another tokenizer" in said(unigram)
    assert "'../x'" in said(changed("file", "../x", at="variants/0"), "fp32")
    assert "another size" in said(changed("size", 7, at="variants/0"), "fp32")
    assert "no number" in said(changed("max_length", "9", at="towers/0/input"))
    assert "pads its texts" in said(changed("pad_to_max_length", True, at="towers/0/input"))
    assert "single_word" in said(
        changed("single_word", True, "tokenizer.json", at="added_tokens/0")
    )
    (tmp_path / "json").mkdir()
    (tmp_path / "json/fmrt.json").write_text('{"towers": [')
    assert "fmrt.json is not valid JSON" in said(tmp_path / "json")
    assert "line 2: the text is not valid UTF-8" in said(roberta, line=b"fine\n\xff\n")
    assert "line 1: the text has a NUL" in said(roberta, line=b"a\0b")
    assert "line 1: the text has 4" in said(minilm, line=b"word " * 400)
    assert "--truncate" in said(minilm, line=b"word " * 400)
    usage = subprocess.run([program, "--unknown"], capture_output=True, check=False)
    assert (usage.returncode, usage.stderr.count(b"\n")) == (2, 1)
