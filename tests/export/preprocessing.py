"""Differences from Hugging Face's processors as a table: ``python -m tests.export.preprocessing``.

Rewrites the table in docs/images-and-sounds.md.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fmrt.export.audio.feature_extractor import FeatureExtractor
from fmrt.export.vision.image_processor import ImageProcessor, reference_images
from fmrt.preprocess.audio import AudioPreprocessor, decode
from fmrt.preprocess.image import ImagePreprocessor
from fmrt.preprocess.spectrogram import FEATURES_FILE, Spectrogram
from tests.export.audio import AUDIO, TinyAudio, save_audio
from tests.export.test_audio import files
from tests.export.test_vision import photographs
from tests.export.vision import VISION, TinyVision, save_vision

DOCS = Path(__file__).resolve().parents[2] / "docs/images-and-sounds.md"
BEGIN, END = "<!-- processors: begin -->", "<!-- processors: end -->"


def pixels_error(tiny: TinyVision, directory: Path) -> float:
    processor = ImageProcessor(save_vision(tiny, directory))
    items = [*reference_images(), *photographs()]
    ours = ImagePreprocessor(processor.spec(1, items))
    encoded = ours.encode([ours.load(item) for item in items], "", "error")
    got = encoded.feeds(np.arange(len(items)))["pixel_values"]
    return float(np.abs(got - np.stack([processor(item) for item in items])).max())


def features_error(tiny: TinyAudio, directory: Path) -> float:
    extractor = FeatureExtractor(save_audio(tiny, directory))
    spec = extractor.spec(1, None)
    extractor.write_arrays(directory)
    spectrogram = None
    if spec.spectrogram is not None:
        spectrogram = Spectrogram(directory / FEATURES_FILE, spec.spectrogram)
    ours = AudioPreprocessor(spec, spectrogram)
    errors = []
    for item in [*extractor.sounds(), *files()]:
        waveform = decode(item, spec.sampling_rate, spec.max_samples)[: spec.max_samples]
        errors.append(np.abs(ours.load(item).values - extractor(waveform)).max())
    return float(max(errors))


def rows() -> Iterator[str]:
    worst: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        for i, image in enumerate(VISION):
            error = pixels_error(image, Path(name, f"image{i}"))
            worst[image.processor] = max(error, worst.get(image.processor, 0.0))
        for i, sound in enumerate(AUDIO):
            error = features_error(sound, Path(name, f"sound{i}"))
            worst[sound.extractor] = max(error, worst.get(sound.extractor, 0.0))
    for kind, error in sorted(worst.items()):
        yield f"| {kind} | {error:.1e} |" if error else f"| {kind} | 0 |"


def main() -> None:
    table = "\n".join(["| processor | max abs error |", "|---|---|", *rows()])
    print(table)
    before, _, rest = DOCS.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    DOCS.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
