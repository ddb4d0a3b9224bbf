"""How a run lies on its devices: what each holds whole, and what in parts."""

from pkgutil import resolve_name
from typing import Any, NamedTuple

from torch import nn

from lit_llm.costs.simulation import StepMemory, tensor_bytes

STRATEGIES = ("ddp", "fsdp", "tensor_parallel")


class Layout(NamedTuple):
    """The devices of a run in two directions.

    Args:
        strategy: `ddp`, `fsdp` or `tensor_parallel`.
        data: Groups of devices that read different data; under all but `ddp` they share one set of weights.
        tensor: Devices of a group, which share the matrices inside the blocks.
        copies_gradients: Whether `ddp` sends copies of the gradients, not the gradients themselves.
    """

    strategy: str
    data: int
    tensor: int = 1
    copies_gradients: bool = True

    @property
    def devices(self) -> int:
        """All of them."""
        return self.data * self.tensor

    def memory(self, step: StepMemory, backbone: nn.Module) -> dict[str, int]:
        """What a device holds of a step, in bytes by name.

        Args:
            step: What the step holds on one device alone.
            backbone: The network; what lies under `blocks` is inside the blocks.
        """
        blocks = list(backbone.blocks)  # type: ignore[arg-type]
        whole = tensor_bytes(list(backbone.parameters()))
        matrices = sum(tensor_bytes([p for p in block.parameters() if p.ndim == 2]) for block in blocks)
        share = (1 - matrices / whole + matrices / whole / self.tensor) / (1 if self.strategy == "ddp" else self.data)
        rows = {name: round(getattr(step, name) * share) for name in ("weights", "gradients", "optimizer")}
        rows |= {"activations": step.activations, "logits": step.logits}
        if self.strategy == "ddp" and self.data > 1 and self.copies_gradients:
            rows["copies to send"] = step.gradients
        if self.strategy != "ddp" and self.data > 1:
            # Of one block that works and the next that comes in, beside the tables, which stay whole for a step.
            largest = max(tensor_bytes(list(block.parameters())) for block in blocks)
            tables = whole - sum(tensor_bytes(list(block.parameters())) for block in blocks)
            rows["gathered weights"] = tables + round(2 * largest / self.tensor)
        return rows


def layout(strategy: str | None, configured: Any, devices: int, nodes: int) -> Layout:
    """The layout that an option or, without one, the Trainer's setting asks for.

    Args:
        strategy: One of `STRATEGIES`. None: as configured.
        configured: The Trainer's `strategy`: a name, or a class with its settings.
        devices: Devices of each node.
        nodes: Machines.

    Raises:
        ValueError: If the strategy is unknown, or the devices cannot be shared out as it says.
    """
    tensor: int | str = 1
    copies = True
    if strategy is None:
        settings = getattr(configured, "init_args", None) or {}
        given = getattr(configured, "dict_kwargs", None) or {}
        copies = not given.get("gradient_as_bucket_view", False)
        strategy = _kind(getattr(configured, "class_path", configured))
        tensor = settings.get("tensor_parallel_size", "auto") if strategy == "tensor_parallel" else 1
    elif strategy == "tensor_parallel":
        tensor = "auto"
    elif strategy not in STRATEGIES:
        raise ValueError(f"--strategy {strategy} is not known; it is one of {', '.join(STRATEGIES)}")
    size = devices if tensor == "auto" else int(tensor)
    if devices * nodes % size:
        raise ValueError(f"{devices * nodes} devices cannot be shared out in groups of {size} (tensor_parallel_size)")
    return Layout(strategy, devices * nodes // size, size, copies)


def _kind(configured: Any) -> str:
    """Which of the strategies a name or a class of Lightning's is."""
    from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, ModelParallelStrategy, SingleDeviceStrategy

    name = str(configured)
    if name.startswith(("auto", "ddp", "fsdp")) and "." not in name:
        return "fsdp" if name.startswith("fsdp") else "ddp"
    kinds = {
        ModelParallelStrategy: "tensor_parallel",  # of groups of 1 it is FSDP2
        FSDPStrategy: "fsdp",
        DDPStrategy: "ddp",
        SingleDeviceStrategy: "ddp",
    }
    found: Any = resolve_name(name) if "." in name else None
    known = next((word for kind, word in kinds.items() if isinstance(found, type) and issubclass(found, kind)), None)
    if known is not None:
        return known
    raise ValueError(f"what trainer.strategy {configured} divides is not known; say --strategy {'|'.join(STRATEGIES)}")
