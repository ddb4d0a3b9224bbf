"""Optimizers and schedules that torch lacks. Everything here takes parameters and knows no module."""

import math
from collections.abc import Callable, Collection, Iterable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import AdamW, Muon, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.overrides import TorchFunctionMode


def parameter_groups(
    backbone: nn.Module,
    rest: Iterable[nn.Parameter] = (),
    trained: Collection[nn.Parameter] | None = None,
    layer_decay: float = 1.0,
) -> list[dict[str, Any]]:
    """Named groups of the parameters that train: `matrices`, `tables` and `vectors`; only vectors are not decayed.

    Matrices are the 2-D weights inside the blocks; tables the embeddings, the output layer and what else has two axes
    or more; vectors the norms and biases. Decay on matrices and tables alone is GPT-2's and GPT-3's (Brown et al.,
    2020, appendix B).

    With a decay of the rates by layer (ULMFiT's discriminative rates, Howard and Ruder, 2018,
    https://arxiv.org/abs/1801.06146; by one factor as in ELECTRA, Clark et al., 2020,
    https://arxiv.org/abs/2003.10555) each layer has groups of its own, `matrices.3` or `tables.embedding`, whose
    `lr_factor` is for `scale_rates`. Norm, head and what lies outside the network keep the whole rate; a tied head is
    a part of the embedding.

    Args:
        backbone: The network; what lies under `blocks` is inside the blocks.
        rest: Parameters outside the network.
        trained: Those that train, now or later. None: all that ask for gradients.
        layer_decay: Factor of the learning rate from each layer to the one below it, in (0, 1].
    """
    wanted = None if trained is None else {id(parameter) for parameter in trained}
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in [*backbone.named_parameters(), *(("", p) for p in rest)]:
        if not (parameter.requires_grad if wanted is None else id(parameter) in wanted):
            continue
        is_matrix = parameter.ndim == 2 and name.startswith("blocks.")
        kind = "vectors" if parameter.ndim < 2 else "matrices" if is_matrix else "tables"
        layer, distance = _layer(backbone, name) if layer_decay != 1 else ("", 0)
        group = groups.setdefault(kind + layer, {"params": [], "name": kind + layer})
        group["params"].append(parameter)
        if kind == "vectors":
            group["weight_decay"] = 0.0
        if layer_decay != 1:
            group["lr_factor"] = layer_decay**distance
    order = ("matrices", "tables", "vectors")
    return sorted(groups.values(), key=lambda group: order.index(group["name"].partition(".")[0]))


def _layer(backbone: nn.Module, name: str) -> tuple[str, int]:
    """What a parameter's layer is called in the names of groups, and how many layers lie above it."""
    blocks = len(backbone.blocks)  # type: ignore[arg-type]
    part, _, inner = name.partition(".")
    if part == "blocks":
        number = inner.partition(".")[0]
        return f".{number}", blocks - int(number)
    return (".embedding", blocks + 1) if part == "embedding" else ("", 0)


def scale_rates(optimizer: Optimizer) -> None:
    """Multiply the learning rate of each group by its `lr_factor`, before a schedule takes it for the initial one."""
    for group in optimizer.param_groups:
        group["lr"] *= group.get("lr_factor", 1.0)


class _InFloat32(TorchFunctionMode):
    """Keeps torch's Muon from rounding to bfloat16, whose products most CPUs emulate, twenty times as slow."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0].clone() if func is Tensor.bfloat16 else func(*args, **(kwargs or {}))


class MuonAdamW(Optimizer):
    """Muon for the matrices inside the blocks, AdamW for everything else; one optimizer to the outside.

    Muon: Jordan et al., 2024 (https://kellerjordan.github.io/posts/muon/), with the update scaled to AdamW's size
    (Liu et al., 2025, https://arxiv.org/abs/2502.16982), so that one learning rate suits both.

    Args:
        params: Named parameter groups; `matrices`, and `matrices.3` of a layer, go to Muon.
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
        matrices = [group for group in groups if _is_of_matrices(group)]
        others = [group for group in groups if not _is_of_matrices(group)]
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

    @property
    def parts(self) -> dict[str, Optimizer]:
        """The optimizers that this one is made of, by their names in its state."""
        return {"muon": self.muon, "adamw": self.adamw}

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of both."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        on_cpu = self.muon.param_groups[0]["params"][0].device.type == "cpu"
        with _InFloat32() if on_cpu else nullcontext():
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


def _is_of_matrices(group: dict[str, Any]) -> bool:
    return str(group.get("name")).partition(".")[0] == "matrices"


class Schedule(LambdaLR):
    """Linear warmup, then what `after_warmup` says.

    Args:
        optimizer: Optimizer whose learning rates are scaled.
        warmup_steps: Optimizer steps in which the rate rises to the peak.
        max_steps: Optimizer step at which the floor is reached. None: the last of the run; the module puts it into
            `end`. A run may be shorter than the warmup, for a first try, which is told.
        floor: Final rate as a fraction of the peak, in [0, 1].

    Raises:
        ValueError: If the steps do not fit together, or `floor` is outside [0, 1].
    """

    decay_steps = 0  # at the end

    def __init__(self, optimizer: Optimizer, warmup_steps: int, max_steps: int | None, floor: float) -> None:
        if not 0 <= floor <= 1:
            raise ValueError(f"floor {floor} is not a fraction of the peak rate; it lies in [0, 1]")
        self.end: float = math.inf if max_steps is None else max_steps
        if min(warmup_steps, self.decay_steps) < 0 or warmup_steps + self.decay_steps > self.end:
            decay = f" and decay_steps {self.decay_steps}" if self.decay_steps else ""
            raise ValueError(f"warmup_steps {warmup_steps}{decay} do not fit into max_steps {max_steps}")
        self.warmup_steps, self.max_steps, self.floor = warmup_steps, max_steps, floor
        super().__init__(optimizer, self._factor)

    def misfit(self, steps: float) -> str:
        """What does not fit into a run, whose rate then never reaches the peak, or falls from below it; or nothing.

        Args:
            steps: Optimizer steps of the run.
        """
        if self.warmup_steps < steps and self.warmup_steps + self.decay_steps <= steps:
            return ""
        decay = f" and decay_steps {self.decay_steps}" if self.decay_steps else ""
        both = f"--model.lr_scheduler.warmup_steps {self.warmup_steps}{decay}"
        return f"{both} do not fit into the {steps:,.0f} steps of the run"

    def state_dict(self) -> dict[str, Any]:
        """Where the schedule stands; what it is, the config says."""
        return {"last_epoch": self.last_epoch, "_step_count": self._step_count, "_last_lr": self._last_lr}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.__dict__.update({name: state_dict[name] for name in self.state_dict()})

    def _factor(self, step: int) -> float:
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        return self.floor + (1 - self.floor) * self.after_warmup(step)

    def after_warmup(self, step: int) -> float:
        """How far the rate of a step is between floor and peak, in [0, 1]."""
        raise NotImplementedError


class WarmupCosine(Schedule):
    """Linear warmup, then cosine decay to a floor.

    The schedule of GPT-3 (Brown et al., 2020, https://arxiv.org/abs/2005.14165, appendix B).

    Args:
        optimizer: Optimizer whose learning rates are scaled.
        warmup_steps: Optimizer steps in which the rate rises to the peak.
        max_steps: Optimizer step at which the floor is reached. None: the last of the run.
        floor: Final rate as a fraction of the peak, in [0, 1].

    Raises:
        ValueError: If `warmup_steps` is negative or exceeds `max_steps`, or `floor` is outside [0, 1].
    """

    def __init__(
        self, optimizer: Optimizer, warmup_steps: int, max_steps: int | None = None, floor: float = 0.1
    ) -> None:
        super().__init__(optimizer, warmup_steps, max_steps, floor)

    def after_warmup(self, step: int) -> float:
        """Half a turn of a cosine."""
        done = min((step - self.warmup_steps) / max(self.end - self.warmup_steps, 1), 1.0)
        return 0.5 * (1 + math.cos(math.pi * done))


class WarmupStableDecay(Schedule):
    """Linear warmup, a constant rate, then linear decay to a floor (Hu et al., 2024, https://arxiv.org/abs/2404.06395).

    The constant part may be lengthened after the fact: only the decay knows where the run ends.

    Args:
        optimizer: Optimizer whose learning rates are scaled.
        warmup_steps: Optimizer steps in which the rate rises to the peak.
        decay_steps: Steps of the decay at the end.
        max_steps: Optimizer step at which the floor is reached. None: the last of the run.
        floor: Final rate as a fraction of the peak, in [0, 1].

    Raises:
        ValueError: If warmup or decay is negative, both do not fit into `max_steps`, or `floor` is outside [0, 1].
    """

    def __init__(
        self,
        optimizer: Optimizer,
        warmup_steps: int,
        decay_steps: int,
        max_steps: int | None = None,
        floor: float = 0.0,
    ) -> None:
        self.decay_steps = decay_steps
        super().__init__(optimizer, warmup_steps, max_steps, floor)

    def after_warmup(self, step: int) -> float:
        """The peak, and a straight line down."""
        return min(max(self.end - step, 0) / max(self.decay_steps, 1), 1.0)


def restart(schedule: Any) -> None:
    """Set the rates to those of a schedule; a checkpoint brings those of its own, which may have ended."""
    if isinstance(schedule, LambdaLR):
        factors = [factor(schedule.last_epoch) for factor in schedule.lr_lambdas]
        for group, base, factor in zip(schedule.optimizer.param_groups, schedule.base_lrs, factors, strict=True):
            group["lr"] = base * factor


def total_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Euclidean norm of all gradients, whole ones or shards."""
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    return norm.full_tensor() if isinstance(norm, DTensor) else norm
