"""Mixture of experts: many MLPs, of which each token passes through a few."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_llm.backbone.layers import ActivationFactory, GatedMLP


class StackedLinear(nn.Module):
    """A linear layer without bias for each expert; the weights are one tensor (n_expert, outputs, inputs).

    Args:
        n_expert: Layers.
        in_features: Inputs of each.
        out_features: Outputs of each.
    """

    def __init__(self, n_expert: int, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_expert, out_features, in_features))

    def forward(self, parts: list[Tensor]) -> list[Tensor]:
        """Maps each expert's tokens (N_e, inputs) to (N_e, outputs); an expert without tokens reads no weights."""
        # Unbound once: the gradient of an index would be as large as all experts, for each of them.
        weights = self.weight.unbind()
        return [F.linear(x, w) if len(x) else x.new_zeros(0, len(w)) for x, w in zip(parts, weights, strict=True)]


class Experts(nn.Module):
    """Mixture of gated MLPs: a router sends each token to its best few and adds up what they say, by its softmax.

    Shazeer et al., 2017 (https://arxiv.org/abs/1701.06538); Mixtral: Jiang et al., 2024
    (https://arxiv.org/abs/2401.04088); the shared expert: Qwen2 (https://arxiv.org/abs/2407.10671). No loss balances
    the load of the experts.

    Args:
        n_embd: Width C of the residual stream.
        hidden: Width of each expert's gate. None: 8/3 * n_embd rounded up to a multiple of 32, as that of GatedMLP.
        n_expert: Experts.
        n_active: Experts that each token passes through.
        activation: The activation of the gates. None: `torch.nn.SiLU`.
        renormalize: Whether the weights of a token's experts are scaled to a sum of 1 (Mixtral, Qwen3).
        shared_hidden: Width of one more expert that all tokens pass through, weighted by a sigmoid (Qwen2). None: none.

    Raises:
        ValueError: If `n_active` is not between 1 and `n_expert`.
    """

    def __init__(
        self,
        n_embd: int,
        hidden: int | None = None,
        n_expert: int = 8,
        n_active: int = 2,
        activation: ActivationFactory | None = None,
        renormalize: bool = True,
        shared_hidden: int | None = None,
    ) -> None:
        super().__init__()
        if not 1 <= n_active <= n_expert:
            raise ValueError(f"n_active {n_active} cannot be: there are n_expert {n_expert} experts to choose from")
        hidden = -(-8 * n_embd // 96) * 32 if hidden is None else hidden
        self.n_active, self.renormalize = n_active, renormalize
        self.router = nn.Linear(n_embd, n_expert, bias=False)
        self.expert_fc = StackedLinear(n_expert, n_embd, 2 * hidden)  # gate and up in one matrix product
        self.activation = (activation or nn.SiLU)()
        self.expert_proj = StackedLinear(n_expert, hidden, n_embd)
        self.shared = None if shared_hidden is None else GatedMLP(n_embd, shared_hidden, activation)
        self.shared_gate = None if shared_hidden is None else nn.Linear(n_embd, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, T, C) to (B, T, C)."""
        tokens = x.flatten(0, -2)  # (N, C)
        weights, chosen = self.route(tokens)  # (N, K)
        order = chosen.flatten().argsort(stable=True)  # (N K): all of the first expert's, then all of the second's
        parts = list(tokens[order // self.n_active].split(self._counts(chosen)))
        halves = [part.chunk(2, dim=-1) for part in self.expert_fc(parts)]
        said = torch.cat(self.expert_proj([self.activation(gate) * up for gate, up in halves]))  # (N K, C)
        said = said[order.argsort()].unflatten(0, (-1, self.n_active))  # (N, K, C)
        y = (said * weights[..., None].to(said.dtype)).sum(dim=1)
        if self.shared is not None and self.shared_gate is not None:
            y = y + self.shared_gate(tokens).sigmoid() * self.shared(tokens)
        return y.view_as(x)

    def route(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (N, C) to the weights and the numbers of each token's experts, both (N, K)."""
        probabilities = self.router(tokens).softmax(dim=-1, dtype=torch.float32)  # (N, n_expert)
        weights, chosen = probabilities.topk(self.n_active, dim=-1)
        return weights / weights.sum(dim=-1, keepdim=True) if self.renormalize else weights, chosen

    def _counts(self, chosen: Tensor) -> list[int]:
        """Tokens of each expert; evenly many on the meta device, where nobody knows."""
        n_expert = len(self.expert_fc.weight)
        if chosen.is_meta:
            return [len(part) for part in torch.empty(chosen.numel()).tensor_split(n_expert)]
        return torch.bincount(chosen.flatten(), minlength=n_expert).tolist()
