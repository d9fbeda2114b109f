"""What a text model's directory says about embeddings, with or without its weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import Tensor
from transformers import AutoModel, PretrainedConfig
from transformers.modeling_outputs import BaseModelOutput

from fmrt.errors import ExportError, said
from fmrt.export.adopt.graph import STATES, TYPES
from fmrt.export.choices import Overrides
from fmrt.export.loading.backbone import backbone_class, is_two_towers, read_config
from fmrt.export.loading.checkpoint import check_size
from fmrt.export.loading.directory import (
    CONFIG_FILE,
    SENTENCE_TRANSFORMERS,
    check_directory,
    check_kind,
    read_object,
    stated_modules,
)
from fmrt.export.loading.fetching import WEIGHTS, Origin
from fmrt.export.loading.pretrained import cannot_load
from fmrt.export.loading.tokenizer import check_packages
from fmrt.export.quiet import quiet
from fmrt.export.text.modules import MODULES, check_modules
from fmrt.export.text.settings import (
    choose_max_length,
    choose_normalize,
    choose_pooling,
    prompts_choice,
)
from fmrt.export.text.source import TextSource, load_text_source

TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")
TEXT_INPUT = "input_ids"
# Main inputs of models of images, and of sounds.
MEDIA = ("pixel_values", "input_values", "input_features")
# What stands for the main inputs of a model of two towers.
BOTH = "both"


def has_weights(path: Path) -> bool:
    """Whether PyTorch's weights of the model lie in a directory."""
    return any(found for pattern in WEIGHTS for found in place_of(path).glob(pattern))


def place_of(path: Path) -> Path:
    """The folder of a directory's model, which sentence-transformers' modules may name."""
    modules = stated_modules(path, str(path))
    inner = path / modules[0].path if modules else path
    return path if (path / CONFIG_FILE).is_file() else inner


def check_model(origin: Origin, trust: bool) -> tuple[PretrainedConfig, str]:
    """Read a directory's configuration, and the name of its model's main input.

    Raises:
        ExportError: It is no model of texts, images or sounds, or a file is missing.
    """
    name, path = origin.name, place_of(origin.path)
    if not (path / CONFIG_FILE).is_file():
        raise ExportError(
            f"{name} has no {CONFIG_FILE}; name the model that the graph was made from with "
            "--model, or copy its configuration there"
        )
    check_directory(origin.path, name)
    check_size(path)
    config = read_config(path, trust)
    kind = backbone_class(config)
    main = BOTH if is_two_towers(kind) else getattr(kind, "main_input_name", TEXT_INPUT)
    if main not in (BOTH, TEXT_INPUT, *MEDIA):
        raise ExportError(
            f"{name} is a {config.model_type} model, and fmrt adopts models of texts, of images or "
            "of sounds; export it from PyTorch with fmrt export"
        )
    if main in (BOTH, TEXT_INPUT) and not any(found for p in TOKENIZERS for found in path.glob(p)):
        raise ExportError(
            f"{name} has no tokenizer: it holds none of {', '.join(TOKENIZERS)}; name the model "
            "that the graph was made from with --model, or copy its tokenizer there"
        )
    return config, str(main)


def load_source(
    origin: Origin, overrides: Overrides, graph: Path, *, own_vector: bool
) -> TextSource:
    """The model that a graph was made from, or what its directory says of it.

    Args:
        origin: The directory.
        overrides: What the user asked for.
        graph: The graph, which stands in for weights that are not there.
        own_vector: Whether the graph ends in the text's vector, so that nothing is to be chosen.

    Raises:
        ExportError: It cannot be read, with the reason.
        OptionError: An override that makes no sense for this model.
    """
    if has_weights(origin.path):
        return load_text_source(origin, "cpu", overrides)
    path = origin.path
    if overrides.pooling is None:
        check_kind(path, origin.name)
    model = _without_weights(origin, overrides.trust_remote_code, graph)
    check_modules(model, origin.name)
    tokenizer = model.tokenizer
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    chosen = (
        []
        if own_vector
        else [
            choose_pooling(model, path, overrides.pooling),
            choose_normalize(model, path, overrides.normalize),
        ]
    )
    choices = (
        *chosen,
        choose_max_length(model, path, overrides.max_length),
        prompts_choice(model, path),
    )
    return TextSource(origin, model.eval(), model.max_seq_length, choices)


class GraphBackbone(torch.nn.Module):
    """A graph in the place of a transformers model.

    Args:
        graph: The file of the graph, which ends in ``last_hidden_state`` or is never run.
        shape: The model of its configuration, without memory for weights.
    """

    main_input_name = TEXT_INPUT

    def __init__(self, graph: Path, shape: torch.nn.Module) -> None:
        super().__init__()
        # Not a module of this one: what has no memory cannot be moved to a device.
        self._shape = (shape,)
        self.config = shape.config
        self.device = torch.device("cpu")
        self._session = open_graph(graph)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        **_: object,
    ) -> BaseModelOutput:
        """Run the graph."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        given = {"input_ids": input_ids, "attention_mask": mask, TYPES: types}
        states = run_graph(self._session, {name: v.numpy() for name, v in given.items()}, STATES)
        return BaseModelOutput(last_hidden_state=torch.from_numpy(states))

    def get_input_embeddings(self) -> torch.nn.Module:
        """The embedding table, which has a shape and no content."""
        table: torch.nn.Module = self.shape.get_input_embeddings()
        return table

    @property
    def shape(self) -> Any:  # noqa: ANN401  # a transformers model
        """The model of the configuration, without memory for weights."""
        return self._shape[0]

    def named_modules(self, *args: Any, **options: Any) -> Iterator[Any]:
        """Those of the model that the graph was made from, for their sizes."""
        found: Iterator[Any] = self.shape.named_modules(*args, **options)
        return found


def open_graph(graph: Path) -> ort.InferenceSession:
    """A session on the CPU.

    Raises:
        ExportError: ONNX Runtime does not load it.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as e:  # of ONNX Runtime's own kinds
        raise ExportError(f"ONNX Runtime does not load the graph: {said(e)}") from e


def run_graph(
    session: ort.InferenceSession, feeds: Mapping[str, NDArray[Any]], output: str
) -> NDArray[np.float32]:
    """One output for some feeds, of which those that the graph lacks are left out.

    Raises:
        ExportError: ONNX Runtime does not run it.
    """
    names = {value.name for value in session.get_inputs()}
    try:
        found = session.run([output], {name: v for name, v in feeds.items() if name in names})
    except Exception as e:  # of ONNX Runtime's own kinds
        raise ExportError(f"ONNX Runtime does not run the graph: {said(e)}") from e
    values: NDArray[np.float32] = found[0]
    return values


class _GraphTransformer(Transformer):
    """sentence-transformers' first module, whose model is a graph."""

    def _load_model(self, *_: Any, graph: GraphBackbone, **__: Any) -> GraphBackbone:
        return graph


def _without_weights(origin: Origin, trust: bool, graph: Path) -> SentenceTransformer:
    """The directory's modules as sentence-transformers reads them, a graph as the first."""
    path = origin.path
    check_packages(path)
    config = read_config(path, trust)
    stated = stated_modules(path, origin.name)
    kinds = {kind.__name__: kind for kind in MODULES}
    try:
        with quiet():
            with torch.device("meta"):
                shape = AutoModel.from_config(config, trust_remote_code=trust)
            backbone = GraphBackbone(graph, shape)
            first = _transformer(path / (stated[0].path if stated else ""), backbone, trust)
            width = first.config.hidden_size
            more = [
                kinds[module.kind].load(str(path), subfolder=module.path, local_files_only=True)
                for module in stated[1:]
                if module.kind in kinds
            ] or [Pooling(width, "mean")]
            return SentenceTransformer(modules=[first, *more], device="cpu", **_prompts(path))
    except ExportError:
        raise
    except Exception as e:  # whatever a malformed directory provokes
        raise cannot_load(str(path), path, e) from e


def _transformer(path: Path, backbone: GraphBackbone, trust: bool) -> Transformer:
    output = {"method": "forward", "method_output_name": STATES}
    return _GraphTransformer.load(
        str(path),
        local_files_only=True,
        trust_remote_code=trust,
        model_kwargs={"graph": backbone},
        init_defaults={
            "modality_config": {"text": output},
            "module_output_name": "token_embeddings",
        },
    )


def _prompts(path: Path) -> dict[str, Any]:
    file = path / SENTENCE_TRANSFORMERS
    stated = read_object(file) if file.is_file() else {}
    return {key: stated[key] for key in ("prompts", "default_prompt_name") if stated.get(key)}
