"""What fewer bits cost: the perplexity of a text in fp32, bf16 and int8, as `lit-llm generate --dtype` decodes.

    python benchmarks/quality.py --checkpoint SOURCE --text FILE

The text is read in windows of the model's length, each token predicted from those before it in its window, and each
window beginning with the begin-of-text token if the tokenizer has one.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_llm.backbone import GPT
from lit_llm.inference.products import DTYPES, prepare
from lit_llm.inference.text import TextModel


def windows(ids: Sequence[int], length: int, begin: int | None) -> list[Tensor]:
    """(1, T) ids with T up to `length` + 1: the last one is only predicted. Each id but the first is predicted once."""
    first = [] if begin is None else [begin]
    step = length + 1 - len(first) - (begin is None)  # without a token to begin with, the last id is there again
    starts = range(0, len(ids) - (begin is None), step)
    return [torch.tensor([[*first, *ids[at : at + length + 1 - len(first)]]]) for at in starts]


@torch.inference_mode()
def perplexity(backbone: GPT, parts: Sequence[Tensor]) -> tuple[float, int]:
    """Exp of the mean loss over all predicted tokens, and how many these are."""
    total, count = 0.0, 0
    for idx in parts:
        logits = backbone(idx[:, :-1])
        total += float(F.cross_entropy(logits[0].float(), idx[0, 1:], reduction="sum"))
        count += idx.shape[1] - 1
    return math.exp(total / count), count


def main(args: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="The perplexity of a text in fp32, bf16 and int8.")
    parser.add_argument("--checkpoint", required=True, help="whatever `lit-llm generate --checkpoint` takes")
    parser.add_argument("--text", type=Path, required=True, help="a file of text in UTF-8")
    parser.add_argument("--block_size", type=int, help="tokens of a window; the model's own by default")
    options = parser.parse_args(args)
    content = options.text.read_text(encoding="utf-8")
    rows = ["| dtype | perplexity | against fp32 |", "|---|---|---|"]
    exact = counted = 0
    for dtype in DTYPES:
        model = TextModel.from_source(options.checkpoint, torch.float32)
        length = min(options.block_size or model.backbone.block_size, model.backbone.block_size)
        parts = windows(model.tokenizer.encode(content).tolist(), length, model.tokenizer.begin_of_text)
        found, counted = perplexity(prepare(model.backbone, dtype), parts)
        exact = exact or found
        rows.append(f"| `{dtype}` | {found:.4f} | {found / exact - 1:+.3%} |")
    print(f"{options.text.name}: {counted:,} tokens, {len(content.encode()):,} bytes")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
