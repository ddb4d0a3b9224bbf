"""A model whose answers are known: after each byte it writes the one that was said to follow, whatever came before."""

from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import save_file

from lit_llm.backbone import GPT
from lit_llm.backbone.layers import Head
from lit_llm.data.tokenizer import Bytes, to_state
from lit_llm.weights.lit_folder import SETTINGS, lit_settings

C, V = 96, 257
SIZES = {"vocab_size": V, "n_layer": 1, "n_head": 3, "n_embd": C}
UNTIED = {"class_path": "lit_llm.backbone.layers.Head", "init_args": {"tied": False}}
# The template that writes nothing but what was said: the last byte of a message decides what the answer is.
BARE = (
    "{% for m in messages %}{{ m.content + ('\n' if m.role == 'system' else eos_token if m.role == 'assistant' else '')"
    " }}{% endfor %}"
)
COMMANDS = "\x1b[31m\x07ok\x9bB\u202e\r"  # to a terminal
ANSWERS = {"?": "cat sun", "!": "xyzx", "#": COMMANDS}


def speaking(block_size: int, answers: dict[str, str] = ANSWERS) -> GPT:
    """A backbone that knows answers.

    Args:
        block_size: Positions.
        answers: By the character that is asked with. Each ends with the end of a text, or goes round for ever if its
            last character comes twice in it; no other byte does so in any of them.
    """
    torch.manual_seed(0)
    backbone = GPT(**SIZES, block_size=block_size, head=partial(Head, tied=False)).eval()
    directions = torch.nn.functional.normalize(torch.randn(V, C), dim=1)
    output = torch.zeros(V, C)
    known = set()
    for asked, answer in answers.items():
        for one, two in pairwise([*(asked + answer).encode(), Bytes.end_of_text]):
            if one not in known:
                output[two] += directions[one]
            known.add(one)
    with torch.no_grad():
        for parameter in backbone.blocks.parameters():
            parameter.zero_()
        backbone.embedding.tokens.weight.copy_(directions)
        backbone.embedding.positions.weight.zero_()
        backbone.head.linear.weight.copy_(30 * output)  # so that nothing else is ever drawn
    return backbone


def write_speaking(folder: Path, block_size: int, template: str | None = BARE) -> Path:
    """The same in a folder, with a tokenizer of bytes and a chat template."""
    folder.mkdir()
    backbone, tokenizer = speaking(block_size), Bytes()
    tokenizer.chat_template = template
    settings = {"class_path": "lit_llm.GPT", "init_args": {**SIZES, "block_size": block_size, "head": UNTIED}}
    (folder / SETTINGS).write_text(lit_settings(settings, to_state(tokenizer)), encoding="utf-8")
    save_file(backbone.state_dict(), folder / "model.safetensors")
    return folder
