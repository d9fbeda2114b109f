"""What a model's own card and licence say, for the card of its bundle."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import metadata_load

from fmrt.bundle.card import CARD_FILE
from fmrt.export.choices import Choice
from fmrt.export.loading.adapter import AdapterFiles
from fmrt.export.loading.fetching import Origin
from fmrt.export.loading.pretrained import first_line

# The part of the front matter that stays true of the same weights in another form.
KEPT = ("license", "license_name", "license_link", "language", "datasets", "base_model")
LICENCES = ("license", "licence", "copying", "notice")
PROSE = ("", ".txt", ".md", ".rst")


def read_source_card(
    origin: Origin, adapters: Sequence[AdapterFiles] = ()
) -> tuple[dict[str, Any], Choice]:
    """What the source's card states, and what to tell the user of its licence.

    The base of a bundle is the hub's model that it was made from; of a local directory, the base
    that its card names.
    """
    stated, problem = _metadata(origin.path / CARD_FILE)
    kept = {name: stated[name] for name in KEPT if stated.get(name)}
    # A loaded sentence-transformers directory may be an adapter itself, and then is named twice.
    origins = (origin, *adapters)
    bases = list(dict.fromkeys(each.name for each in origins if each.revision is not None))
    if bases:
        kept["base_model"] = bases[0] if len(bases) == 1 else bases
    licence = str(kept.get("license", "none"))
    return kept, Choice("license", licence, problem or CARD_FILE)


def copy_licences(source: Path, directory: Path) -> None:
    """Copy the licence files next to a model to a bundle."""
    for path in source.iterdir():
        named = path.name.lower().startswith(LICENCES) and path.suffix.lower() in PROSE
        if named and path.is_file():
            shutil.copyfile(path, directory / path.name)


def _metadata(card: Path) -> tuple[dict[str, Any], str | None]:
    """A card's front matter, and why there is none."""
    if not card.is_file():
        return {}, f"the model has no {CARD_FILE}"
    try:
        found: dict[str, Any] | None = metadata_load(card)
    except Exception as e:  # whatever malformed YAML provokes
        return {}, f"{CARD_FILE} cannot be read: {first_line(e)}"
    if not found:
        return {}, f"{CARD_FILE} has no front matter"
    return found, None if found.get("license") else f"{CARD_FILE} states none"
