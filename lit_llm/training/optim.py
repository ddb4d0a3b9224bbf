"""Optimizers and schedules that torch lacks. Everything here takes parameters and knows no module."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer
from torch.optim.lr_scheduler import LambdaLR


def parameter_groups(backbone: nn.Module, rest: Iterable[nn.Parameter] = ()) -> list[dict[str, Any]]:
    """Named groups of the parameters that train: `matrices`, `tables` and `vectors`; only vectors are not decayed.

    Matrices are the 2-D weights inside the blocks; tables the embeddings and the output layer; vectors the norms and
    biases. Decay on matrices and tables alone is GPT-2's and GPT-3's (Brown et al., 2020, appendix B).

    Args:
        backbone: The network; what lies under `blocks` is inside the blocks.
        rest: Parameters outside the network.
    """
    groups: dict[str, list[nn.Parameter]] = {"matrices": [], "tables": [], "vectors": []}
    for name, parameter in [*backbone.named_parameters(), *(("", p) for p in rest)]:
        if parameter.requires_grad:
            inside = name.startswith("blocks.")
            groups["vectors" if parameter.ndim < 2 else "matrices" if inside else "tables"].append(parameter)
    made: list[dict[str, Any]] = [{"params": params, "name": name} for name, params in groups.items() if params]
    for group in made:
        if group["name"] == "vectors":
            group["weight_decay"] = 0.0
    return made


class MuonAdamW(Optimizer):
    """Muon for the matrices inside the blocks, AdamW for everything else; one optimizer to the outside.

    Muon: Jordan et al., 2024 (https://kellerjordan.github.io/posts/muon/), with the update scaled to AdamW's size
    (Liu et al., 2025, https://arxiv.org/abs/2502.16982), so that one learning rate suits both.

    Args:
        params: Named parameter groups; `matrices` go to Muon.
        lr: Learning rate of AdamW.
        muon_lr: Learning rate of Muon. None: the same.
        betas: Decay of AdamW's two averages.
        weight_decay: Decoupled weight decay of both.
        momentum: Momentum of Muon.

    Raises:
        ValueError: If there is no group named `matrices`, or none beside it.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float = 1e-3,
        muon_lr: float | None = None,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 0.1,
        momentum: float = 0.95,
    ) -> None:
        groups = [dict(group) for group in params]
        matrices = [group for group in groups if group.get("name") == "matrices"]
        others = [group for group in groups if group.get("name") != "matrices"]
        if not matrices or not others:
            raise ValueError("MuonAdamW needs a parameter group named 'matrices', and others beside it")
        self.muon = Muon(
            [{**group, "params": list(group["params"])} for group in matrices],
            lr=lr if muon_lr is None else muon_lr,
            weight_decay=weight_decay,
            momentum=momentum,
            adjust_lr_fn="match_rms_adamw",
        )
        self.adamw = AdamW(others, lr=lr, betas=betas, weight_decay=weight_decay, fused=True)
        super().__init__([p for group in groups for p in group["params"]], {})
        # The inner optimizers' own groups, so that a schedule that writes to ours writes to theirs.
        self.param_groups = [*self.muon.param_groups, *self.adamw.param_groups]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of both."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.muon.step()
        self.adamw.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The states of both."""
        return {"muon": self.muon.state_dict(), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore both.

        Raises:
            ValueError: If the states are those of another optimizer.
        """
        if state_dict.keys() != {"muon", "adamw"}:
            raise ValueError("the states to restore are not MuonAdamW's; resume with the optimizer that wrote them")
        self.muon.load_state_dict(state_dict["muon"])
        self.adamw.load_state_dict(state_dict["adamw"])
        self.param_groups = [*self.muon.param_groups, *self.adamw.param_groups]


class WarmupCosine(LambdaLR):
    """Linear warmup, then cosine decay to a floor.

    The schedule of GPT-3 (Brown et al., 2020, https://arxiv.org/abs/2005.14165, appendix B).

    Args:
        optimizer: Optimizer whose learning rates are scaled.
        warmup_steps: Optimizer steps from 0 to the peak rate.
        max_steps: Optimizer step at which the floor is reached.
        floor: Final rate as a fraction of the peak, in [0, 1].

    Raises:
        ValueError: If `warmup_steps` is negative or exceeds `max_steps`, or `floor` is outside [0, 1].
    """

    def __init__(self, optimizer: Optimizer, warmup_steps: int, max_steps: int, floor: float = 0.1) -> None:
        _check_schedule(warmup_steps, max_steps, 0, floor)
        decay_steps = max(max_steps - warmup_steps, 1)

        def factor(step: int) -> float:
            if step < warmup_steps:
                return (step + 1) / (warmup_steps + 1)
            done = min((step - warmup_steps) / decay_steps, 1.0)
            return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))

        super().__init__(optimizer, factor)


class WarmupStableDecay(LambdaLR):
    """Linear warmup, a constant rate, then linear decay to a floor (Hu et al., 2024, https://arxiv.org/abs/2404.06395).

    The constant part may be lengthened after the fact: only the decay knows where the run ends.

    Args:
        optimizer: Optimizer whose learning rates are scaled.
        warmup_steps: Optimizer steps from 0 to the peak rate.
        max_steps: Optimizer step at which the floor is reached.
        decay_steps: Steps of the decay at the end.
        floor: Final rate as a fraction of the peak, in [0, 1].

    Raises:
        ValueError: If warmup or decay is negative, both do not fit into `max_steps`, or `floor` is outside [0, 1].
    """

    def __init__(
        self, optimizer: Optimizer, warmup_steps: int, max_steps: int, decay_steps: int, floor: float = 0.0
    ) -> None:
        _check_schedule(warmup_steps, max_steps, decay_steps, floor)

        def factor(step: int) -> float:
            if step < warmup_steps:
                return (step + 1) / (warmup_steps + 1)
            left = max(max_steps - step, 0) / max(decay_steps, 1)
            return floor + (1 - floor) * min(left, 1.0)

        super().__init__(optimizer, factor)


def _check_schedule(warmup_steps: int, max_steps: int, decay_steps: int, floor: float) -> None:
    if min(warmup_steps, decay_steps) < 0 or warmup_steps + decay_steps > max_steps:
        decay = f" and decay_steps {decay_steps}" if decay_steps else ""
        raise ValueError(f"warmup_steps {warmup_steps}{decay} do not fit into max_steps {max_steps}")
    if not 0 <= floor <= 1:
        raise ValueError(f"floor {floor} is not a fraction of the peak rate; it lies in [0, 1]")


def total_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Euclidean norm of all gradients."""
    return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
