"""Other wirings of a block: post-norm, sandwich, parallel. The pre-norm `Block` stands in gpt.py."""

from torch import Tensor, nn

from lit_llm.backbone.context import Context
from lit_llm.backbone.gpt import Block
from lit_llm.backbone.layers import NormFactory


class PostNormBlock(Block):
    """Post-norm block of OLMo 2 (https://arxiv.org/abs/2501.00656): x + norm(attention(x)), then x + norm(mlp(x)).

    Args:
        n_embd: Width C of the residual stream.
        norm: Factory of the norms.
        attention: The attention of this layer.
        mlp: The MLP of this layer.
        dropout: Probability with which a channel of either branch is dropped in training.
    """

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        """Maps (B, T, C) to (B, T, C)."""
        x = x + self.dropout(self.norm_1(self.attention(x, context).to(x.dtype)))  # autocast made it bfloat16
        return x + self.dropout(self.norm_2(self.mlp(x).to(x.dtype)))


class SandwichBlock(Block):
    """Sandwich block of Gemma 2 (https://arxiv.org/abs/2408.00118): a norm before and after either branch.

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
        super().__init__(n_embd, norm, attention, mlp, dropout)
        self.post_norm_1, self.post_norm_2 = norm(n_embd), norm(n_embd)

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        """Maps (B, T, C) to (B, T, C)."""
        x = x + self.dropout(self.post_norm_1(self.attention(self.norm_1(x), context).to(x.dtype)))  # see above
        return x + self.dropout(self.post_norm_2(self.mlp(self.norm_2(x)).to(x.dtype)))


class ParallelBlock(Block):
    """Parallel block of GPT-NeoX (https://arxiv.org/abs/2204.06745): x + attention(norm(x)) + mlp(norm(x)).

    Args:
        n_embd: Width C of the residual stream.
        norm: Factory of the norms.
        attention: The attention of this layer.
        mlp: The MLP of this layer.
        dropout: Probability with which a channel of either branch is dropped in training.
        shared_norm: Whether both branches read the same norm (Phi, GPT-J).
    """

    def __init__(
        self,
        n_embd: int,
        norm: NormFactory,
        attention: nn.Module,
        mlp: nn.Module,
        dropout: float = 0.0,
        shared_norm: bool = False,
    ) -> None:
        super().__init__(n_embd, norm, attention, mlp, dropout)
        if shared_norm:
            del self.norm_2
        self.shared_norm = shared_norm

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        """Maps (B, T, C) to (B, T, C)."""
        normed = self.norm_1(x)
        attention = self.dropout(self.attention(normed, context))
        return x + attention + self.dropout(self.mlp(normed if self.shared_norm else self.norm_2(x)))
