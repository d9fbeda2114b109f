"""Exports a Hugging Face model to an fmrt bundle. Needs the packages of ``fmrt[export]``.

``source`` reads a model and what its directory says about embeddings, ``heads`` ends the backbone
in the embedding, ``trace`` makes the graph, ``rewrite`` speeds it up for one execution provider,
``reference`` takes vectors from PyTorch, ``layout`` writes the directory, and ``bundle`` runs these
in order. The result's only contract with the runtime is the bundle itself.
"""

from export.bundle import export_model

__all__ = ["export_model"]
