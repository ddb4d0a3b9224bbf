"""What ranks do together: begin with the same weights, shard them (FSDP2), measure their gradients."""

import warnings
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

from lit_llm.training.optim import total_norm
from lit_llm.training.tensor_parallel import Split, summed


def same_start(module: nn.Module, device: torch.device) -> None:
    """Give every rank the weights of the first one, as DDP does; of another seed, they would be pieces of two networks.

    Args:
        module: The network, the same on all ranks but for its values.
        device: Where the ranks talk; one tensor at a time goes there.
    """
    for tensor in (*module.parameters(), *module.buffers()):
        sent = tensor.detach().to(device)
        dist.broadcast(sent, 0)
        tensor.detach().copy_(sent)


def shard(module: nn.Module, mesh: DeviceMesh) -> None:
    """Shard weights, gradients and optimizer state over the ranks of a mesh, each block by itself, the rest last.

    A block's weights are whole only while it computes (Zhao et al., 2023, https://arxiv.org/abs/2304.11277; FSDP2).

    Args:
        module: The network, and whatever else trains beside it.
        mesh: The ranks.
    """
    # The logits are a view; torch warns of changes in place, and nobody changes them.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    for part in module.children():
        if next(part.parameters(), None) is not None:
            for block in getattr(part, "blocks", ()):
                fully_shard(block, mesh=mesh)
            fully_shard(part, mesh=mesh)
            if hasattr(part, "hidden_states"):  # a way into the network beside `forward`
                register_fsdp_forward_method(part, "hidden_states")


def gradient_norm(
    parameters: Iterable[tuple[str, nn.Parameter]], splits: dict[str, Split], mesh: DeviceMesh | None
) -> Tensor:
    """Euclidean norm of all gradients, also where a rank holds only a part of them.

    Args:
        parameters: The parameters by name.
        splits: Those that tensor parallelism divides.
        mesh: The ranks among which it does. None: it does not.
    """
    whole: list[nn.Parameter] = []
    divided: list[nn.Parameter] = []
    for name, parameter in parameters:
        (divided if name in splits else whole).append(parameter)
    if mesh is None:
        return total_norm(whole)
    return (total_norm(whole) ** 2 + summed(total_norm(divided) ** 2, mesh)).sqrt()
