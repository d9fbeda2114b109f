"""Every option of the API and of the commands, given what it cannot be: one clear error."""

from __future__ import annotations

import ast
import importlib.util
import inspect
from pathlib import Path

import numpy as np
import pytest

import fmrt
from fmrt.cli import main
from fmrt.cli._program import make_parser
from fmrt.data import read_records
from fmrt.embed_options import NAMES
from fmrt.errors import DataError, FmrtError, OptionError
from fmrt.options import OPTIONS as CHECKED

# Each is checked in a table, or where its field of EmbedOptions is declared.
OPTIONS = {*CHECKED, *NAMES}
# Values of every type, and out of every range.
WRONG = (
    1.5,
    float("nan"),
    float("inf"),
    -1,
    0,
    10**30,
    2**31,
    True,
    np.float32(2),
    np.bool_(True),
    "",
    "nonesuch",
    "a\0b",
    "\ud800",
    b"x",
    (),
    [1],
    {},
    object(),
    np.zeros(3),
)
# What a call is about, and is no option of it.
THINGS = {"self", "bundle", "items", "model", "text", "options", "image", "repository", "texts"}
THINGS |= {"source", "output", "folder", "vectors", "query", "reading", "arguments"}
CALLS = {
    "Embedder": fmrt.Embedder.__init__,
    "embed": fmrt.Embedder.embed,
    "embed_iter": fmrt.Embedder.embed_iter,
    "embed_items": fmrt.Embedder.embed_items,
    "from_pretrained": fmrt.Embedder.from_pretrained,
    "token_count": fmrt.Embedder.token_count,
    "push_bundle": fmrt.push_bundle,
    "embed_to_file": fmrt.embed_to_file,
    "embed_to_folder": fmrt.embed_to_folder,
    "search": fmrt.search,
    "Reading": fmrt.Reading,
    "Segmenter": fmrt.Segmenter.__init__,
    "Segmenter.from_pretrained": fmrt.Segmenter.from_pretrained,
}


FUNCTIONS = {
    "embed_to_file": lambda bundle, options: fmrt.embed_to_file(
        bundle, "a.txt", "a.npy", **{"overwrite": True, **options}
    ),
    "embed_to_folder": lambda bundle, options: fmrt.embed_to_folder(
        bundle, "a.txt", "folder", **{"overwrite": True, **options}
    ),
    "search": lambda bundle, options: fmrt.search(
        bundle, np.eye(12, dtype="float32"), "cat", **options
    ),
    "Reading": lambda _, options: fmrt.Reading(**options),
}


def options_of(call: str) -> list[str]:
    return [n for n in inspect.signature(CALLS[call]).parameters if n not in THINGS]


@pytest.fixture(scope="module")
def embedder(tiny_bundle):
    with fmrt.Embedder(tiny_bundle) as e:
        yield e


def called(call, tiny_bundle, embedder, **options):
    """Make the call, and use what it gives."""
    if call == "Embedder":
        with fmrt.Embedder(tiny_bundle, **options) as e:
            e.embed(["cat", "dog"])
    elif call == "from_pretrained":
        fmrt.Embedder.from_pretrained(str(tiny_bundle), **options).close()
    elif call == "push_bundle":
        fmrt.push_bundle(tiny_bundle, "no name of a repository", **options)
    elif call in FUNCTIONS:
        FUNCTIONS[call](tiny_bundle, options)
    elif call == "Segmenter":
        fmrt.Segmenter(tiny_bundle, **options)
    elif call == "Segmenter.from_pretrained":
        fmrt.Segmenter.from_pretrained(str(tiny_bundle), **options)
    elif call == "embed_items":
        list(embedder.embed_items(["cat", "dog"], **{"raw_of": str, **options}))
    else:
        result = getattr(embedder, call)(["cat", "dog"], **options)
        assert call != "embed_iter" or len(list(result)) == 2


def error_of(call, tiny_bundle, embedder, options):
    """One of ours, or None where the call can be made."""
    try:
        called(call, tiny_bundle, embedder, **options)
    except FmrtError as e:
        return e
    return None


@pytest.mark.parametrize("call", CALLS)
def test_every_option_is_in_the_table(call) -> None:
    assert set(options_of(call)) <= OPTIONS | {"keep"}


def test_every_option_of_everything_public_is_in_the_table() -> None:
    public = [getattr(fmrt, name) for name in set(fmrt.__all__) - {"__version__"}]
    methods = [m for t in public if inspect.isclass(t) for m in vars(t).values()]
    functions = [getattr(f, "__func__", f) for f in (*public, *methods)]
    found = {
        parameter.name
        for function in functions
        if inspect.isfunction(function)
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    assert {"workers", "batch_tokens", "threads", "private"} <= found
    # What a prompt of a segmenter is, how to read, data sets: these have checks of their own.
    assert found - OPTIONS == {"points", "labels", "box", "keep", "reading", "evaluate"}


@pytest.mark.parametrize("call", CALLS)
def test_what_an_option_cannot_be_is_one_clear_error(
    call, tiny_bundle, embedder, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where a cache may be made
    (tmp_path / "a.txt").write_text("cat\n")
    for option in options_of(call):
        for value in WRONG:
            error = error_of(call, tiny_bundle, embedder, {option: value})
            assert "\n" not in str(error)
            assert len(str(error)) < 400
            if isinstance(error, OptionError):
                said = (option, str(OptionError(value)), "segment", "no name of a repository")
                assert any(words in str(error) for words in said)


@pytest.mark.parametrize(
    ("call", "options"),
    [
        ("Embedder", {"workers": 1.5}),
        ("Embedder", {"workers": True}),
        ("Embedder", {"workers": 10**9}),
        ("Embedder", {"intra_op_threads": float("nan")}),
        ("Embedder", {"gpu_mem_limit": 8e9}),
        ("Embedder", {"cache": ""}),
        ("Embedder", {"verify": "no"}),
        ("Embedder", {"provider": None}),
        ("Embedder", {"modality": 3}),
        ("embed", {"batch_tokens": 8.0}),
        ("embed", {"truncate_dim": True}),
        ("embed", {"normalize": 1}),
        ("embed", {"show_progress": "yes"}),
        ("embed", {"dedupe": 1}),
        ("embed", {"prompt": "a\0b"}),
        ("embed", {"prompt": "\udcff"}),
        ("embed", {"prompt": b"x"}),
        ("embed", {"prompt": "x", "prompt_name": "query"}),
        ("embed_items", {"on_error": 3}),
        ("Segmenter", {"threads": 0.5}),
        ("push_bundle", {"private": 1}),
    ],
)
def test_the_error_names_the_option_and_quotes_the_value(
    call, options, tiny_bundle, embedder
) -> None:
    name, value = next(iter(options.items()))
    shown = "8000000000" if value == 8e9 else repr(value).strip("'\"")[:3]
    with pytest.raises(OptionError, match=rf"{name}=.*") as e:
        called(call, tiny_bundle, embedder, **options)
    assert shown in str(e.value)


def test_numbers_and_flags_of_numpy_are_taken(tiny_bundle, embedder) -> None:
    options = {"workers": np.int64(1), "verify": np.bool_(True), "gpu_mem_limit": np.uint32(9)}
    with fmrt.Embedder(tiny_bundle, **options) as other:
        got = other.embed(["cat", "dog"], truncate_dim=np.int16(4), batch_tokens=np.uint8(8))
    assert np.array_equal(got, embedder.embed(["cat", "dog"], truncate_dim=4, batch_tokens=8))


COMMANDS = make_parser().commands
# Instead of a command's arguments, by their names in its help.
ARGUMENTS = {"INPUT": "a.txt", "IMAGE": "a.txt", "EMBEDDINGS": "v.npy", "QUERY": "cat"}
REQUIRED = {"embed": ["-o", "w.npy", "--overwrite"], "segment": ["-o", "m", "--point", "1,1"]}
# Those of bench and tune are others' too, and take long where a value is possible; those of the
# exporter are tested with it.
ELSEWHERE = ("bench", "tune", "export", "quantize")
WORDS = ("", "nan", "-1", "0", "1.5", "9" * 5000, "\udcff", "a\0b", "nonesuch", "inf", "1e400")


def lines_of(command: str, bundle: str) -> list[list[str]]:
    """Command lines of which each has one value that means nothing, or little."""
    parser = COMMANDS[command]
    places = [a for a in parser._actions if not a.option_strings]
    base = [bundle if a.metavar == "BUNDLE" else ARGUMENTS.get(a.metavar, "none") for a in places]
    lines = []
    for word in WORDS:
        lines += [[*base[:i], word, *base[i + 1 :]] for i in range(len(base))]
        for action in parser._actions:
            if action.option_strings and action.nargs != 0:
                flag = action.option_strings[-1]
                joined = f"{flag}={word}" if flag.startswith("--") else f"{flag}{word}"
                lines.append([*base, joined])
    return [[command, *line, *REQUIRED.get(command, [])] for line in lines]


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(name, marks=pytest.mark.slow) if name == "package" else name
        for name in COMMANDS
        if name not in ELSEWHERE
    ],
)
def test_what_an_option_of_a_command_cannot_be_is_one_line(
    command, tiny_bundle, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("cat\nthe red dog\n")
    np.save("v.npy", np.ones((2, 12), np.float32))
    for line in lines_of(command, str(tiny_bundle)):
        try:
            status = main([*line, "-q"])
        except SystemExit as e:
            status = e.code
        err = capsys.readouterr().err
        said = [said for said in err.splitlines() if not said.startswith("fmrt: warning: ")]
        if status:
            assert [one.startswith("fmrt: error: ") for one in said] == [True], line
            assert len(said[0]) < 1000, line


def test_every_option_that_is_checked_has_a_check() -> None:
    found = importlib.util.find_spec("fmrt.export")
    assert found is not None
    folders = [*fmrt.__path__, *(found.submodule_search_locations or ())]
    files = {file for folder in folders for file in Path(folder).rglob("*.py")}
    calls = [
        node
        for file in files
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "checked"
    ]
    named = {keyword.arg for call in calls for keyword in call.keywords}
    assert {"normalize", "provider"} <= named <= CHECKED.keys()


def test_an_error_that_names_flags_has_their_names_in_python(tmp_path) -> None:
    (tmp_path / "a.csv").write_text("id;text\n0;a;b\n1;c;d\n")
    with pytest.raises(DataError, match="--delimiter") as e:
        read_records(str(tmp_path / "a.csv"))
    assert e.value.__notes__ == ["In Python: --delimiter is delimiter"]
    (tmp_path / "b.csv").write_text("alpha centauri\nbeta decay\n")
    with pytest.raises(DataError, match="--no-header") as e:
        read_records(str(tmp_path / "b.csv"))
    assert e.value.__notes__ == ["In Python: --column is column, --no-header is header=False"]
    assert not hasattr(OptionError("docker run --gpus all"), "__notes__")
