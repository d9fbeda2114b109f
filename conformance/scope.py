"""Which model types take text, pixels or audio alone, and why the others do not."""

from __future__ import annotations

import inspect
import re
from typing import Any

from transformers import CONFIG_MAPPING, MODEL_MAPPING
from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

INPUTS = {
    "input_ids": "text",
    "pixel_values": "image",
    "input_values": "audio",
    "input_features": "audio",
}
# Parts of the names of inputs, and their modality.
PARTS = (
    ("input_ids", "text"),
    ("pixel_values", "image"),
    ("visual_feats", "image"),
    ("flattened_patches", "image"),
    ("input_values", "audio"),
    ("input_features", "audio"),
    ("protein", "proteins"),
)
# What a model gives that is no embedding of its input, by a pattern of its class's name.
OTHER_OUTPUTS = (
    (
        r"Detr|DFine|DeimV|Deimv2|DETR|MaskFormerModel|Mask2Former|OneFormer|TableTransformer|Yolos"
        r"|DocLayout|OmDet",
        "object queries: it describes the objects found, not the image",
    ),
    (
        r"ForRNNT|ForTDT|ForCTC|TextRecognition|Recognition",
        "a task's head: AutoModel knows no model without it",
    ),
    (
        r"Codec|Tokenizer|Dac|DacModel|Mimi|Encodec|VQVAE|Xcodec",
        "an audio or image codec: it gives codes",
    ),
    (
        r"Vits|FastSpeech|Clvp|Bark|MusicGen|Musicgen|Dia$|DiaModel|HiggsAudio|TTS|UnivNet|SpeechT5",
        "it speaks or plays: sound is what it gives",
    ),
    (r"^(Sam|Sam2|SamHQ|EdgeTam)Model$|Sam3Tracker", "promptable segmentation: fmrt segment"),
    (r"^MiniCPM.*Vision", "several inputs: image, target_sizes"),
    (r"^(Bros|LayoutLMv2)", "several inputs: text, boxes"),
    (r"^ImageGPT", "its input is none of text, pixels and audio: colour clusters"),
    (r"^(VideoMAE|Vivit|Timesformer)", "its input is none of text, pixels and audio: video"),
    (
        r"LightGlue|EfficientLoFTR|SuperPoint|SuperGlue|UVDoc|Swin2SR|PPOCRV|DepthPro|SegGpt|KeypointMatching|Diarization",
        "a task's head: it gives keypoints, maps or pictures",
    ),
)


def model_types() -> list[str]:
    """Every model type that `AutoModel` knows."""
    return sorted(MODEL_MAPPING_NAMES)


def model_class(model_type: str) -> Any:
    """The class that `AutoModel` makes of a model type."""
    found = MODEL_MAPPING[CONFIG_MAPPING[model_type]]
    return found[0] if isinstance(found, list | tuple) else found


def classify(model_type: str) -> tuple[str, str]:
    """The modality of a model type and an empty reason, or ``""`` and why it is out of scope."""
    try:
        kind = model_class(model_type)
    except Exception as e:  # a class that needs what is not installed
        return "", f"transformers cannot import it: {' '.join(str(e).split())[:80]}"
    for pattern, reason in OTHER_OUTPUTS:
        if re.search(pattern, kind.__name__):
            return "", reason
    main = getattr(kind, "main_input_name", None)
    taken = list(inspect.signature(kind.forward).parameters)
    if not isinstance(main, str) or main not in INPUTS or main not in taken:
        first = [name for name in taken if name not in ("self", "args", "kwargs")]
        return "", f"its input is none of text, pixels and audio: {first[0] if first else main}"
    modality = INPUTS[main]
    parts = {f"{of}_config": of for of in ("text", "vision", "audio")}
    held = [parts[name] for name in CONFIG_MAPPING[model_type].sub_configs or () if name in parts]
    if len(held) > 1:
        return "", f"several inputs: {', '.join(held)}"
    several = _others(kind, taken, modality)
    return ("", f"several inputs: {', '.join(several)}") if several else (modality, "")


def _others(kind: Any, taken: list[str], modality: str) -> list[str]:
    """Inputs that a model needs, or is made for, in addition to its main one."""
    required = [
        p.name
        for p in list(inspect.signature(kind.forward).parameters.values())[1:]
        if p.default is inspect.Parameter.empty
        and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        and p.name not in INPUTS
    ]
    others = {of for name in taken for part, of in PARTS if _is(part, name)} - {modality}
    if others:
        return sorted({modality, *others})
    return [modality, *required] if required else []


def _is(part: str, name: str) -> bool:
    """Whether an input's name says a modality; what a decoder is given does not count."""
    return part in name and not name.startswith("decoder") and not name.endswith("_mask")
