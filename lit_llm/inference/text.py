"""Text in, text out: a backbone and the tokenizer it was trained with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch

from lit_llm.backbone import GPT
from lit_llm.data.tokenizer import Tokenizer, from_state
from lit_llm.inference.generate import generate
from lit_llm.weights.checkpoint import load_backbone, open_checkpoint


@dataclass
class TextModel:
    """A backbone with its tokenizer.

    Args:
        backbone: The network.
        tokenizer: Turns text into its ids and back.
    """

    backbone: GPT
    tokenizer: Tokenizer

    @classmethod
    def from_checkpoint(cls, path: str | Path) -> Self:
        """Load both from a checkpoint, a run folder, or the newest run in a folder of runs.

        Raises:
            ValueError: If there is none, it is damaged, or it holds no tokenizer.
        """
        path, checkpoint = open_checkpoint(path)
        if "tokenizer" not in checkpoint:
            raise ValueError(f"the checkpoint '{path}' holds no tokenizer; it was not written by lit-llm fit")
        try:
            return cls(load_backbone(checkpoint), from_state(checkpoint["tokenizer"]))
        except ValueError as error:
            raise ValueError(f"'{path}' cannot be used: {error}") from error

    def complete(
        self,
        prompt: str,
        max_new_tokens: int = 100,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
    ) -> str:
        """Continue a prompt; an empty one starts from the end-of-text token.

        Args:
            prompt: The beginning of the text.
            max_new_tokens: Tokens to add at most.
            temperature: 0 is greedy, 1 samples as trained.
            top_k: Draw among the k best tokens. None: among all.
            top_p: Draw among the fewest tokens whose probability reaches p. None: among all.
            seed: Repeats a text. None: another one each time.

        Returns:
            The continuation alone.

        Raises:
            ValueError: If the prompt is empty and the tokenizer has no end-of-text token to start from.
        """
        end = self.tokenizer.end_of_text
        ids = self.tokenizer.encode(prompt).tolist() or ([] if end is None else [end])
        if not ids:
            raise ValueError("the prompt is empty, and this tokenizer has no token to start a text with")
        device = next(self.backbone.parameters()).device
        generator = torch.Generator(device)
        generator.seed() if seed is None else generator.manual_seed(seed)
        idx = torch.tensor([ids], device=device)
        drawn = generate(self.backbone, idx, max_new_tokens, temperature, top_k, top_p, end, generator)
        return self.tokenizer.decode([i for i in (int(new) for new in drawn) if i != end])
