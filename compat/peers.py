"""The libraries that a bundle is tried with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Peer:
    """A library.

    Attributes:
        name: A key of its runner's table.
        title: The name in the table.
        packages: What is installed, as its package manager takes it.
        versions: The packages whose versions the table names.
        how: How it is told where the bundle is.
        node: Whether it runs in Node.
        torch: Whether it needs PyTorch, which is taken from the environment that asks.
    """

    name: str
    title: str
    packages: tuple[str, ...]
    versions: tuple[str, ...]
    how: str
    node: bool = False
    torch: bool = False

    @property
    def environment(self) -> str:
        """The folder of its environment; all of Node share one."""
        return "node" if self.node else self.name


PEERS = (
    Peer(
        "transformers.js",
        "transformers.js",
        ("@huggingface/transformers@4.3.2",),
        ("@huggingface/transformers",),
        "the directory",
        node=True,
    ),
    Peer(
        "onnxruntime-node",
        "onnxruntime-node",
        ("onnxruntime-node@1.30.0",),
        ("onnxruntime-node",),
        "the graph; token ids by `examples/javascript`",
        node=True,
    ),
    Peer(
        "onnxruntime-web",
        "onnxruntime-web, WebAssembly",
        ("onnxruntime-web@1.30.0",),
        ("onnxruntime-web",),
        "the graph; token ids by `examples/javascript`",
        node=True,
    ),
    Peer(
        "fastembed",
        "fastembed",
        ("fastembed==0.9.1",),
        ("fastembed",),
        "the directory, as a custom model",
    ),
    Peer("light-embed", "light-embed", ("light-embed==1.0.9",), ("light-embed",), "the directory"),
    Peer(
        "txtai",
        "txtai",
        ("txtai==9.14.0",),
        ("txtai",),
        "the graph and `tokenizer.json`",
        torch=True,
    ),
    Peer(
        "chroma",
        "Chroma, its default embedding function",
        ("chromadb==1.5.9",),
        ("chromadb",),
        "links to the bundle's files where it looks for its own model",
    ),
    Peer(
        "sentence-transformers",
        "sentence-transformers, ONNX back end",
        ("optimum-onnx==0.1.0", "transformers==4.57.6", "sentence-transformers==5.7.0"),
        ("sentence-transformers", "transformers", "optimum-onnx"),
        "the directory, with `file_name`",
        torch=True,
    ),
)
