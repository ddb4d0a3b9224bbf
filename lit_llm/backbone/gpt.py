"""GPT: the wiring of the parts and their initialisation, nothing else. The parts live in layers.py."""

import math
from collections.abc import Callable
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from lit_llm.backbone.context import Context
from lit_llm.backbone.experts import StackedLinear
from lit_llm.backbone.layers import MLP, CausalSelfAttention, Embedding, GatedMLP, Head, NormFactory, again_if
from lit_llm.backbone.settings import Recorded

AttentionFactory = Callable[[int, int], nn.Module]  # n_embd, n_head
MLPFactory = Callable[[int], nn.Module]  # n_embd
BlockFactory = Callable[[int, NormFactory, nn.Module, nn.Module], nn.Module]  # n_embd, norm, attention, mlp
EmbeddingFactory = Callable[[int, int, int], Embedding]  # vocab_size, block_size, n_embd
HeadFactory = Callable[[int, int], nn.Module]  # vocab_size, n_embd
Factory = TypeVar("Factory")


class Block(nn.Module):
    """Pre-norm block (GPT-2, Llama): x + attention(norm(x)), then x + mlp(norm(x)). Its siblings live in blocks.py.

    Args:
        n_embd: Width C of the residual stream.
        norm: Factory of the norms.
        attention: The attention of this layer.
        mlp: The MLP of this layer.
        dropout: Probability with which a channel of either branch is dropped in training.
    """

    def __init__(
        self, n_embd: int, norm: NormFactory, attention: nn.Module, mlp: nn.Module, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.norm_1, self.attention = norm(n_embd), attention
        self.norm_2, self.mlp = norm(n_embd), mlp
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        """Maps (B, T, C) to (B, T, C)."""
        x = x + self.dropout(self.attention(self.norm_1(x), context))
        return x + self.dropout(self.mlp(self.norm_2(x)))


def tiled(name: str, pattern: str, n_layer: int, parts: dict[str, Factory | None]) -> list[Factory]:
    """The part of each layer by its letter. name: of the pattern, for the sentence that refuses it."""
    if wrong := set(pattern or " ") - {letter for letter, part in parts.items() if part is not None}:
        known = " or ".join(letter if part is not None else f"{letter} (not given)" for letter, part in parts.items())
        raise ValueError(f"{name} '{pattern}' has the letter '{min(wrong)}'; a layer is {known}")
    return [part for i in range(n_layer) if (part := parts[pattern[i % len(pattern)]]) is not None]


class GPT(Recorded):
    """Decoder-only transformer from injected parts; the defaults are GPT-2 (Radford et al., 2019).

    https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf

    Args:
        vocab_size: Tokens V that the tokenizer knows.
        block_size: Longest input in tokens; rows of the learned positions, where there are any.
        n_layer: Blocks.
        n_head: Query heads H of each attention.
        n_embd: Width C of the residual stream.
        norm: Every norm of the residual stream: `torch.nn.LayerNorm`, `torch.nn.RMSNorm`, yours.
        attention: What mixes tokens.
        mlp: What mixes channels.
        block: How norm, attention and MLP are wired.
        embedding: What turns ids into vectors.
        head: What turns vectors into logits.
        local_attention: What mixes tokens in the layers marked L: one with a window (Gemma), or with positions
            (SmolLM3). None: no layer is.
        pattern: Letters G (`attention`) and L (`local_attention`) of the layers, repeated from the first to the last.
        experts: What mixes channels in the layers marked E: a mixture of experts. None: no layer is.
        mlp_pattern: Letters M (`mlp`) and E (`experts`) of the layers, repeated from the first to the last.
        vocab_multiple: The token table is padded to a multiple of this for speed (64 on a GPU). The extra rows never
            reach the logits, so they are neither sampled nor part of a loss.

    Raises:
        ValueError: If a size is below 1, a letter of a pattern stands for nothing, or the parts refuse the sizes.
    """

    def __init__(
        self,
        vocab_size: int,
        block_size: int,
        n_layer: int = 12,
        n_head: int = 12,
        n_embd: int = 768,
        norm: NormFactory = nn.LayerNorm,
        attention: AttentionFactory = CausalSelfAttention,
        mlp: MLPFactory = MLP,
        block: BlockFactory = Block,
        embedding: EmbeddingFactory = Embedding,
        head: HeadFactory = Head,
        vocab_multiple: int = 1,
        local_attention: AttentionFactory | None = None,
        pattern: str = "G",
        experts: MLPFactory | None = None,
        mlp_pattern: str = "M",
    ) -> None:
        super().__init__()
        sizes = {
            "vocab_size": vocab_size,
            "block_size": block_size,
            "n_layer": n_layer,
            "n_head": n_head,
            "n_embd": n_embd,
            "vocab_multiple": vocab_multiple,
        }
        if wrong := [f"{name} {size}" for name, size in sizes.items() if size < 1]:
            raise ValueError(f"{' and '.join(wrong)} cannot be: a size is at least 1")
        self.vocab_size, self.block_size = vocab_size, block_size
        # Blocks first: parts that refuse the sizes say so before the large tables are allocated.
        attentions = tiled("pattern", pattern, n_layer, {"G": attention, "L": local_attention})
        mlps = tiled("mlp_pattern", mlp_pattern, n_layer, {"M": mlp, "E": experts})
        blocks = [block(n_embd, norm, attentions[i](n_embd, n_head), mlps[i](n_embd)) for i in range(n_layer)]
        rows = math.ceil(vocab_size / vocab_multiple) * vocab_multiple
        self.embedding = embedding(rows, block_size, n_embd)
        self.blocks = nn.ModuleList(blocks)
        self.norm = norm(n_embd)
        self.head = head(rows, n_embd)
        self.recomputes = False  # blocks; see `recompute`
        self.init_weights()

    @classmethod
    def from_pretrained(cls, source: str, dtype: torch.dtype | None = None, allow_nonfinite: bool = False) -> "GPT":
        """A network with the weights of a pretrained one, in eval mode; its settings follow from the source.

        Args:
            source: A model of the Hugging Face hub (`openai-community/gpt2`, `owner/name@revision`), a folder of one
                (config.json and safetensors files), a checkpoint of ours, a run folder, or a folder of runs.
            dtype: Of the parameters. None: that of most of the stored ones.
            allow_nonfinite: Whether weights may be infinite or NaN.

        Raises:
            ValueError: If there is no such source, its family is not known, or its weights are not exactly those that
                its settings ask for.
        """
        from lit_llm.weights.open import open_source  # late: this room knows torch alone but for this one word

        return open_source(source).backbone(dtype, allow_nonfinite)

    def init_weights(self) -> None:
        """GPT-2's: normal(0, 0.02); layers that write to the residual stream (`proj`) 1/sqrt(2 n_layer) of that.

        Norms start anew in their own way, so that a model made on the meta device needs no more than `to_empty` and
        this.
        """
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding | StackedLinear):
                residual = name.endswith((".proj", ".expert_proj"))
                nn.init.normal_(module.weight, std=0.02 / math.sqrt(2 * len(self.blocks)) if residual else 0.02)
                if (bias := getattr(module, "bias", None)) is not None:
                    nn.init.zeros_(bias)
            elif (reset := getattr(module, "reset_parameters", None)) is not None:
                reset()
        for module in self.modules():
            if module is not self and (own_way := getattr(module, "init_weights", None)) is not None:
                own_way()  # a part that starts in its own way says so by a method of this name

    def recompute(self, what: bool | Literal["mlp"]) -> None:
        """Say what the backward pass computes again: nothing, whole blocks (True), or the activations of the MLPs."""
        self.recomputes = what is True
        for part in self.modules():
            if isinstance(part, MLP | GatedMLP):
                part.recomputes = what == "mlp"

    def hidden_states(self, idx: Tensor, context: Context | None = None) -> Tensor:
        """Maps (B, T) to (B, T, C), after the last norm."""
        context = context or Context()
        x = self.embedding(idx, context.positions)
        for block in self.blocks:
            # Tables are made here and not in the block that asks first: so blocks do nothing but compute, which lets
            # one compiled graph serve all of them, in the forward pass and when it is done again.
            if (tables := getattr(getattr(block, "attention", None), "tables", None)) is not None:
                tables(context, idx.shape[1], idx.device)
        for block in self.blocks:
            x = again_if(self.recomputes, block, x, context)
        return self.norm(x)

    def forward(self, idx: Tensor, context: Context | None = None) -> Tensor:
        """Maps (B, T) to (B, T, V)."""
        return self.logits(self.hidden_states(idx, context))

    def logits(self, hidden: Tensor) -> Tensor:
        """Maps (..., C), all hidden states or those that matter, to (..., V)."""
        return self.head(hidden, self.embedding.tokens.weight)[..., : self.vocab_size]

    def output_matrix(self) -> Tensor:
        """(V, C): the matrix that makes logits of hidden states, for a loss that multiplies by it itself.

        Raises:
            ValueError: If the head does more than multiply.
        """
        has_bias = getattr(getattr(self.head, "linear", None), "bias", None) is not None
        if type(self.head) is not Head or self.head.softcap is not None or has_bias:
            capped = "a bias" if has_bias else f"a soft cap of {getattr(self.head, 'softcap', None)}"
            what = capped if type(self.head) is Head else f"a {type(self.head).__name__}"
            raise ValueError(
                f"the backbone's head has {what}, which no loss can take over; choose --model.loss "
                "torch.nn.CrossEntropyLoss"
            )
        linear = self.head.linear
        return (self.embedding.tokens.weight if linear is None else linear.weight)[: self.vocab_size]

    def num_parameters(self) -> int:
        """Parameters, a tied table counted once."""
        return sum(p.numel() for p in self.parameters())

    def flops_per_token(self) -> int:
        """Forward and backward at full context: 6 N + 12 block_size A (PaLM, appendix B).

        N counts what is multiplied: blocks, norm and output layer, but no table in which vectors are only looked up.
        A sums over the layers the channels of all heads; an attention that does not tell them counts as n_embd wide.
        https://arxiv.org/abs/2204.02311
        """
        table = self.embedding.tokens.weight  # the output layer is as large, tied or not
        multiplied = table.numel() + sum(p.numel() for part in (self.blocks, self.norm) for p in part.parameters())
        attentions = (getattr(block, "attention", None) for block in self.blocks)
        channels = sum(getattr(attention, "n_channels", table.shape[1]) for attention in attentions)
        return 6 * multiplied + 12 * self.block_size * channels
