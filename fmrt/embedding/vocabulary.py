"""The token ids that a graph knows, asked of bundles whose manifest does not say."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fmrt.session import Session

if TYPE_CHECKING:
    from fmrt.preprocess.text import TextPreprocessor

# How ONNX Runtime says that an embedding table has fewer rows than an id asks for.
_BEYOND = re.compile(r"out of data bounds.*inclusive range \[-(\d+),", re.DOTALL)


def find_vocabulary(preprocess: TextPreprocessor, session: Session) -> None:
    """Give ``preprocess`` the rows of the graph's embedding table, if its tokenizer has more ids.

    The tokenizer's last id, one token, goes through the graph: bundles of older versions do not
    state ``vocab_size``, and next to none of them needs it.
    """
    if preprocess.vocab_size is not None:
        return
    try:
        session.run({**preprocess.last_token(), **preprocess.constants("")})
    except Exception as e:
        found = _BEYOND.search(str(e))
        # Whatever else fails does so for every text, and is said then.
        preprocess.vocab_size = int(found[1]) if found else None
