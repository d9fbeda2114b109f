"""Raw items to model inputs, by modality, without torch or transformers."""

from __future__ import annotations

from functools import partial

from fmrt.bundle.bundle import Bundle
from fmrt.bundle.manifest import ImageInput, TextInput, Tower
from fmrt.preprocess.base import Preprocessor
from fmrt.system.extras import needing
from fmrt.system.limits import DEFAULT, Limits

TOKENIZER_FILE = "tokenizer.json"


def make_preprocessor(bundle: Bundle, tower: Tower, limits: Limits = DEFAULT) -> Preprocessor:
    """The preprocessor of a tower; ``limits`` are those of an item's memory.

    Raises:
        BundleError: A file that it needs is missing or corrupt.
        MissingExtraError: A package that it needs is not installed.
    """
    spec = tower.input
    if isinstance(spec, TextInput):
        from fmrt.preprocess.text import TextPreprocessor  # only what is used

        read = partial(TextPreprocessor, spec=spec)
        return bundle.checked(TOKENIZER_FILE).use(read)
    with needing(f"Embedding {tower.modality}"):
        if isinstance(spec, ImageInput):
            from fmrt.preprocess.image import ImagePreprocessor

            return ImagePreprocessor(spec, limits)
        from fmrt.preprocess.audio import AudioPreprocessor

        spectrogram = None
        if spec.spectrogram is not None:
            from fmrt.preprocess.spectrogram import FEATURES_FILE, Spectrogram

            features = partial(Spectrogram, parameters=spec.spectrogram)
            spectrogram = bundle.checked(FEATURES_FILE).use(features)
        return AudioPreprocessor(spec, spectrogram, limits)
