"""lit_llm: a PyTorch Lightning research template that carries a language model through its whole life."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lit_llm.backbone.gpt import GPT

__all__ = ["GPT"]


def __getattr__(name: str) -> Any:
    """Import `GPT` on first use, so that `import lit_llm` (and `lit-llm --help`) needs no torch."""
    if name == "GPT":
        from lit_llm.backbone.gpt import GPT

        return GPT
    raise AttributeError(f"module 'lit_llm' has no attribute '{name}'")
