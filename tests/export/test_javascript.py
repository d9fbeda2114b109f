"""The example in JavaScript has fmrt's token ids and vectors, in Node and in a browser."""

from __future__ import annotations

import functools
import html
import http.server
import json
import queue
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from fmrt import Embedder

EXAMPLE = Path(__file__).parents[2] / "examples/javascript"
CHROME = shutil.which("chromium") or shutil.which("google-chrome")
TEXTS = [
    "",
    " ",
    "hello world",
    "SHOUTING, MiXeD 1234567890 !?.,;:-_()[]{}<>@#$%^&*~`|+=",
    "naïve café, Ångström, Straße, İstanbul, e\u0301",
    "日本語の文章。中文句子",
    "Предложение. هذه جملة. यह हिन्दी",
    "emoji 😀 👩\u200d👩\u200d👧 zero\u200bwidth, no\u00a0break, soft\u00adhyphen",
    "[SEP] inside [MASK] and [unused3]",
    "x" * 150,
    "many words " * 400,
]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("npm") is None, reason="no Node here"),
]


@pytest.fixture(scope="module")
def example(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example with its package installed and the bundle in it."""
    folder = tmp_path_factory.mktemp("javascript") / "example"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("node_modules", "bundle"))
    install = ["npm", "install", "--no-audit", "--no-fund"]
    subprocess.run(install, cwd=folder, check=True, capture_output=True, timeout=300)
    (folder / "bundle").symlink_to(minilm)
    return folder


def test_node_has_the_same_ids_and_vectors(example: Path, minilm: Path) -> None:
    done = subprocess.run(
        ["node", "main.mjs", "bundle", "fp32"],
        cwd=example,
        input="\n".join(TEXTS) + "\n",
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    with Embedder(minilm, variant="fp32") as embedder:
        tokenizer = Tokenizer.from_file(str(minilm / "tokenizer.json"))
        tokenizer.enable_truncation(embedder.max_length)
        tokenizer.no_padding()
        expected = embedder.embed(TEXTS, on_too_long="truncate")
    assert [line["ids"] for line in found] == [e.ids for e in tokenizer.encode_batch(TEXTS)]
    assert np.abs(np.array([line["vector"] for line in found]) - expected).max() < 1e-5


# A page around the example's, which sends what that shows.
WATCHER = """<iframe src="index.html?q=QUERY"></iframe><script>
setInterval(() => {
  const page = document.querySelector("iframe").contentDocument;
  if (page.body?.dataset.query) fetch("/", { method: "POST", body: page.body.innerHTML });
}, 200);
</script>"""


class Server(http.server.ThreadingHTTPServer):
    """Serves a folder, and keeps what a page sends.

    Attributes:
        shown: The content of a page, once there is one.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
        self.shown: queue.Queue[str] = queue.Queue()

    def handle_error(self, *_: object) -> None:
        """Say nothing of a browser that is gone."""


class Handler(http.server.SimpleHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        self.server.shown.put(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(example: Path) -> Iterator[Server]:
    with Server(example) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.skipif(CHROME is None, reason="no Chromium here")
def test_the_page_finds_what_fmrt_finds(
    server: Server, example: Path, minilm: Path, tmp_path: Path
) -> None:
    query = "how to read a file line by line"
    page = WATCHER.replace("QUERY", query.replace(" ", "%20"))
    (example / "watcher.html").write_text(page)
    command = [
        *(
            str(CHROME),
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--remote-debugging-port=0",
        ),
        *(
            f"--user-data-dir={tmp_path}",
            f"http://127.0.0.1:{server.server_address[1]}/watcher.html",
        ),
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as browser:
        try:
            shown = html.unescape(server.shown.get(timeout=120))
        finally:
            browser.terminate()
    found = re.findall(r"<li>(.*?) <span>(.*?)</span>", shown)
    corpus = (EXAMPLE / "corpus.txt").read_text().splitlines()
    with Embedder(minilm, variant="fp32") as embedder:
        scores = embedder.embed(corpus) @ embedder.embed_query(query)
    order = np.argsort(-scores)[:5]
    assert [text for text, _ in found] == [corpus[i] for i in order]
    assert np.allclose([float(score) for _, score in found], scores[order], atol=1e-4)
