"""What `EmbedOptions` mean for a model: the tower, the prompt's text, the form of the vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from fmrt.bundle.bundle import Bundle
from fmrt.bundle.manifest import TextInput, Tower
from fmrt.embed_options import DEFAULTS, EmbedOptions
from fmrt.embedding.postprocess import Postprocess, make_postprocess
from fmrt.errors import OptionError


class Request(NamedTuple):
    """Options that a model can follow; made by `make_request`.

    Attributes:
        options: The options as they were given.
        tower: The tower that embeds the items.
        prompt: Text before every item, ``""`` for none.
        post: The function from the model's vectors to those of the result.
    """

    options: EmbedOptions
    tower: Tower
    prompt: str
    post: Postprocess


def make_request(
    bundle: Bundle, options: EmbedOptions = DEFAULTS, modality: str | None = None
) -> Request:
    """Look options up in a bundle; no graph is loaded.

    Args:
        bundle: The bundle.
        options: What is asked for.
        modality: The modality of the items, where it is known; default the options' own.

    Raises:
        OptionError: An option makes no sense for this model.
    """
    tower = bundle.manifest.tower(modality or options.modality)
    post = make_postprocess(
        dim=bundle.manifest.dim,
        normalized=tower.normalize,
        truncate_dim=options.truncate_dim,
        normalize=options.normalize,
        precision=options.precision,
        reference=lambda: bundle.reference(tower.modality).embeddings,
    )
    return Request(options, tower, prompt_text(tower, options), post)


def prompt_text(tower: Tower, options: EmbedOptions) -> str:
    """The text that goes before every item of a tower.

    Raises:
        OptionError: The model has no such prompt, or takes none.
    """
    name, given = options.prompt_name, options.prompt
    if not isinstance(tower.input, TextInput):
        if name is not None or given is not None:
            unit = {"image": "images", "audio": "sounds"}[tower.modality]
            raise OptionError(f"{unit} take no prompt")
        return ""
    if given is not None:
        return given
    name = name if name is not None else tower.input.default_prompt_name
    if name is None:
        return ""
    if name not in tower.input.prompts:
        names = ", ".join(tower.input.prompts) or "none"
        raise OptionError(f"prompt_name={name!r}; this model has: {names}")
    return tower.input.prompts[name]


def for_texts(
    bundle: Bundle, options: EmbedOptions, changes: Mapping[str, Any], names: tuple[str, ...]
) -> EmbedOptions:
    """Options for texts, with the first of some prompts that the model has, where they name none.

    Raises:
        OptionError: A value of the changes is wrong, or the model takes no texts.
        TypeError: There is no option of that name.
    """
    asked = {"modality": "text", **changes}
    if all(asked.get(name, getattr(options, name)) is None for name in ("prompt", "prompt_name")):
        asked["prompt_name"] = first_prompt(bundle, names)
    return options.but(asked)


def first_prompt(bundle: Bundle, names: tuple[str, ...]) -> str | None:
    """The first of some names that a prompt of the model has."""
    return next((name for name in names if name in bundle.manifest.text.prompts), None)
