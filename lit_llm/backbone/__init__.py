"""The network: plain torch; knows no Lightning, no files, no text."""

from lit_llm.backbone.gpt import GPT, Block

__all__ = ["GPT", "Block"]
