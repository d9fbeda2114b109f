"""A bundle as an encoder of the package `mteb`, which then runs its benchmarks on it.

It needs ``pip install mteb``, which brings torch and sentence-transformers.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from mteb.models import ModelMeta
from mteb.models.abs_encoder import AbsEncoder, get_prompt_name
from numpy.typing import NDArray

from fmrt.bundle.bundle import Bundle
from fmrt.embed_options import DEFAULTS, EmbedOptions
from fmrt.embedder import Embedder
from fmrt.encode import DOCUMENT, QUERY
from fmrt.errors import OptionError, quoted

# The names of the modalities in mteb's batches. A bundle takes the first two.
_MODALITIES = ("text", "image", "audio", "video")
_TAKEN = _MODALITIES[:2]
_INSTRUCTION = "{instruction}"


class MtebEncoder(AbsEncoder):  # type: ignore[misc]  # mteb is untyped here
    """An encoder that embeds the texts and images of the tasks of ``mteb`` with a bundle.

    A text's prompt is the first that exists of these. First comes one of ``prompts`` or of the
    model's own: by the name of mteb's task (``NFCorpus-query``, ``NFCorpus``), by its type
    (``Retrieval-query``, ``Retrieval``), or by the side (``query``, ``document``; ``passage`` and
    ``corpus`` stand for the last). Then comes ``instruction``, and then the model's default.

    Args:
        bundle: The directory of the bundle, its hub id, or an opened one.
        prompts: Prompts by those names; they come before the model's own of the same name.
        instruction: A prompt with ``{instruction}`` in it, for queries and for tasks without
            sides. The instruction is that of mteb's task. Documents get none.
        options: The options of embedding, as for `Embedder.embed`.
        loading: Other options of `Embedder`.

    Raises:
        OptionError: ``instruction`` has no ``{instruction}``, or an option makes no sense.
        BundleError: The bundle cannot be used.

    Example:
        >>> import mteb  # doctest: +SKIP
        >>> mteb.evaluate(MtebEncoder("bundle/"), mteb.get_tasks(tasks=["STS12"]))  # doctest: +SKIP
    """

    def __init__(
        self,
        bundle: str | Path | Bundle,
        *,
        prompts: Mapping[str, str] | None = None,
        instruction: str | None = None,
        options: EmbedOptions = DEFAULTS,
        **loading: Any,
    ) -> None:
        if instruction is not None and _INSTRUCTION not in instruction:
            raise OptionError(
                f"instruction={quoted(instruction)} has no {_INSTRUCTION} for the task's own"
            )
        self.model = Embedder(bundle, **loading)
        self.instruction_template = instruction
        self._options = options
        known = self.model.manifest
        texts = known.text.prompts if "text" in known.modalities else {}
        self.model_prompts = {**texts, **(prompts or {})}
        self.mteb_model_meta = self._meta(known.towers[0].modality)

    def encode(
        self,
        inputs: Iterable[Mapping[str, Any]],
        *,
        task_metadata: Any,  # noqa: ANN401  # mteb's TaskMetadata
        hf_split: str,  # noqa: ARG002  # mteb passes it to every encoder
        hf_subset: str,  # noqa: ARG002
        prompt_type: Any = None,  # noqa: ANN401  # mteb's PromptType
        **_: Any,
    ) -> NDArray[np.float32]:
        """Embed the items of a task's batches.

        Args:
            inputs: Batches with ``text`` or ``image``.
            task_metadata: The metadata of the task. Its name, type and prompt choose the prompt of
                texts.
            hf_split: The split; it is ignored.
            hf_subset: The subset; it is ignored.
            prompt_type: The side of the items: ``query``, ``document``, or None.

        Returns:
            The vectors, float32 ``[n, dim]``, in order.

        Raises:
            OptionError: The items are neither texts nor images, or are both at once.
            InputError: An item cannot be embedded.
        """
        batches = iter(inputs)
        first = next(batches, None)
        if first is None:
            return np.zeros((0, self.model.dim), np.float32)
        modality = _modality(first, str(task_metadata.name))
        options = self._options.but({"modality": modality})
        if modality == "text":
            options = options.but(self._prompt(task_metadata, prompt_type))
        items = _items(chain([first], batches), modality)
        found: NDArray[np.float32] = self.model.embed(items, options).astype(np.float32)
        return found

    def _prompt(self, task: Any, side: Any) -> dict[str, str | None]:  # noqa: ANN401
        """The options of `EmbedOptions` that give a task's texts their prompt."""
        name = get_prompt_name(self.model_prompts, task, side)
        if name is None and side is not None:
            names = QUERY if side.value in QUERY else DOCUMENT
            name = next((n for n in names if n in self.model_prompts), None)
        if name is not None:
            return {"prompt": self.model_prompts[name], "prompt_name": None}
        if self.instruction_template is None:
            return {}
        if side is not None and side.value not in QUERY:
            return {"prompt": "", "prompt_name": None}
        instruction = self.get_instruction(task, side)
        if isinstance(instruction, Mapping):  # it is by side, for a task whose items have none
            instruction = next(iter(instruction.values()))
        return {"prompt": self.instruction_template.format(instruction=instruction)}

    def _meta(self, modality: str) -> ModelMeta:
        """The model's metadata. Results are kept by its name, revision and ``experiment``."""
        bundle = self.model.bundle
        variant = self.model.variant_of(modality)
        source = bundle.manifest.source.model
        name = source if re.fullmatch(r"[\w.-]+/[\w.-]+", source) else f"fmrt/{bundle.path.name}"
        changed = {
            field.name: getattr(self._options, field.name)
            for field in dataclasses.fields(self._options)
            if getattr(self._options, field.name) != getattr(DEFAULTS, field.name)
        }
        if self.instruction_template is not None:
            changed["instruction"] = self.instruction_template
        return ModelMeta(
            loader=None,
            name=f"{name}-fmrt-{variant.name}",
            revision=variant.sha256[:40],
            release_date=None,
            languages=None,
            n_parameters=None,
            memory_usage_mb=None,
            max_tokens=None,
            embed_dim=self.model.dim,
            license=None,
            open_weights=None,
            public_training_code=None,
            public_training_data=None,
            framework=["ONNX"],
            similarity_fn_name=None,  # `Embedder.similarity` is the model's own
            use_instructions=bool(self.model_prompts or self.instruction_template),
            training_datasets=None,
            modalities=[m for m in bundle.manifest.modalities if m in _TAKEN],
            experiment_kwargs=changed or None,
        )


def _modality(batch: Mapping[str, Any], task: str) -> str:
    there = [name for name in _MODALITIES if name in batch]
    if len(there) != 1 or there[0] not in _TAKEN:
        given = " and ".join(there) or "nothing"
        raise OptionError(
            f"the task {task!r} gives {given} in one item; a bundle embeds a text or an image"
        )
    return there[0]


def _items(batches: Iterable[Mapping[str, Any]], modality: str) -> Iterator[object]:
    for batch in batches:
        for item in batch[modality]:
            yield item if modality == "text" or hasattr(item, "convert") else _pixels(item)


def _pixels(tensor: Any) -> NDArray[Any]:  # noqa: ANN401  # a tensor of torch
    """The pixels of an image that is not a ``PIL.Image.Image``. Its channels come first."""
    return np.moveaxis(np.asarray(tensor), 0, -1)
