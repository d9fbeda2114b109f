"""ONNX files of a model as other tools make them; runs where those tools are installed.

python other_tools.py MODEL FOLDER writes one folder for each tool.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

CLI = (sys.executable, "-m", "optimum.commands.optimum_cli")


def optimum(model: str, place: Path) -> None:
    """optimum-cli: a graph beside the configuration, quantized and optimized in folders."""
    options = ("--task", "feature-extraction", "--library", "transformers")
    subprocess.run(
        [*CLI, "export", "onnx", "--model", model, *options, place / "plain"], check=True
    )
    quantize = (*CLI, "onnxruntime", "quantize", "--onnx_model", place / "plain")
    subprocess.run([*quantize, "--avx512_vnni", "-o", place / "quantized"], check=True)
    optimize = (*CLI, "onnxruntime", "optimize", "--onnx_model", place / "plain")
    subprocess.run([*optimize, "-O2", "-o", place / "optimized"], check=True)


def sentence_transformers(model: str, place: Path) -> None:
    """The ONNX back end of sentence-transformers."""
    from sentence_transformers import SentenceTransformer, export_dynamic_quantized_onnx_model

    made = SentenceTransformer(model, backend="onnx", model_kwargs={"export": True})
    made.save_pretrained(str(place))
    export_dynamic_quantized_onnx_model(made, "avx512_vnni", str(place))


def transformers_js(plain: Path, place: Path) -> None:
    """What the conversion script of transformers.js does with ONNX Runtime's quantizers."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
    from onnxruntime.transformers.float16 import convert_float_to_float16

    shutil.copytree(plain, place, ignore=shutil.ignore_patterns("*.onnx"))
    (place / "onnx").mkdir()
    source = place / "onnx" / "model.onnx"
    shutil.copyfile(plain / "model.onnx", source)
    options = {"per_channel": True, "extra_options": {"EnableSubgraph": True}}
    for name, kind in (("quantized", QuantType.QUInt8), ("int8", QuantType.QInt8)):
        target = source.with_name(f"model_{name}.onnx")
        quantize_dynamic(source, target, weight_type=kind, **options)
    half = convert_float_to_float16(onnx.load(source), keep_io_types=True)
    onnx.save(half, source.with_name("model_fp16.onnx"))
    blocks = MatMulNBitsQuantizer(onnx.load(source), block_size=32, is_symmetric=True)
    blocks.process()
    blocks.model.save_model_to_file(str(source.with_name("model_q4.onnx")), False)


def fastembed(plain: Path, place: Path) -> None:
    """The cache of fastembed, which is huggingface_hub's: links into a folder of blobs."""
    model = place / "models--qdrant--all-MiniLM-L6-v2-onnx"
    snapshot, blobs = model / "snapshots" / ("5" * 40), model / "blobs"
    for folder in (snapshot, blobs):
        folder.mkdir(parents=True)
    for number, file in enumerate(sorted(plain.iterdir())):
        shutil.copyfile(file, blobs / f"{number:064}")
        (snapshot / file.name).symlink_to(Path("../../blobs") / f"{number:064}")


def main() -> None:
    """Write all."""
    model, folder = sys.argv[1], Path(sys.argv[2])
    optimum(model, folder / "optimum")
    plain = folder / "optimum" / "plain"
    sentence_transformers(model, folder / "sentence-transformers")
    transformers_js(plain, folder / "transformers.js")
    fastembed(plain, folder / "fastembed")


if __name__ == "__main__":
    main()
