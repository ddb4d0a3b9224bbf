"""Entry points for a benchmark of the data path: tokenizing a text, and sampling windows from a token file.

    python benchmarks/data.py TEXT TOKENIZER_JSON OUT [WORKERS]

tokenizes TEXT into the folder OUT; `make_loader` serves batches from a file of uint16 ids.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lit_llm.data.bpe import TokenizerFile
from lit_llm.data.sources import Reading, Source
from lit_llm.data.tokens import prepare


def make_loader(path: str, batch_size: int, block_size: int) -> Iterator[tuple]:
    """An epoch of shuffled batches at stride 1: (B, T) ids and the (B, T) ids that follow them."""
    from lit_llm.data.loader import TrainLoader
    from lit_llm.data.windows import Windows

    tokens = np.memmap(path, np.uint16, "r").view(np.ndarray)
    loader = TrainLoader(Windows(tokens, block_size, stride=1, vocab_size=8192), batch_size, seed=0)
    return ((batch.idx, batch.targets) for batch in loader)


if __name__ == "__main__":
    text, tokenizer, out = sys.argv[1:4]
    workers = int(sys.argv[4]) if len(sys.argv) > 4 else 1
    prepare(Source(text, Reading()), TokenizerFile(tokenizer), Path(out), 0.0, 0.0, workers)
