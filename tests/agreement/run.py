"""python run.py GRAPH IDS VECTORS [BATCH]: embeds with ONNX Runtime and NumPy alone, on one thread.

IDS is an archive of `ids`, all tokens in a row, and of `lengths`. Without a batch each text runs
alone, else with its neighbours, padded. Needs no other package, and so runs under an emulator.
"""

import sys

import numpy as np
import onnxruntime as ort


def main() -> None:
    """Embed."""
    graph, source, out, *batch = sys.argv[1:]
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    with np.load(source) as data:
        texts = np.split(data["ids"], np.cumsum(data["lengths"])[:-1])
    size = int(batch[0]) if batch else 1
    rows = []
    for first in range(0, len(texts), size):
        feeds = padded(texts[first : first + size])
        feeds["token_type_ids"] = np.zeros_like(feeds["input_ids"])
        given = {name: feeds[name] for name in names}
        rows.append(session.run(["sentence_embedding"], given)[0])
    np.save(out, np.concatenate(rows))


def padded(texts: list) -> dict:  # type: ignore[type-arg]
    """The token ids and the mask of a batch."""
    ids = np.zeros((len(texts), max(map(len, texts))), np.int64)
    mask = np.zeros_like(ids)
    for row, (text, kept) in enumerate(zip(texts, mask, strict=True)):
        ids[row, : len(text)] = text
        kept[: len(text)] = 1
    return {"input_ids": ids, "attention_mask": mask}


if __name__ == "__main__":
    main()
