"""What a device holds under each strategy."""

import pytest
from jsonargparse import Namespace
from python_runs import tiny_backbone

from lit_llm.costs.layout import Layout, layout
from lit_llm.costs.simulation import StepMemory

STEP = StepMemory(weights=4800, gradients=2400, optimizer=9600, activations=70, logits=11)
LIGHTNING = "lightning.pytorch.strategies."


def test_ddp_replicates() -> None:
    """All of it on each device, and the gradients a second time, to be sent."""
    assert Layout("ddp", 1).memory(STEP, tiny_backbone()) == STEP._asdict()
    assert Layout("ddp", 8).memory(STEP, tiny_backbone()) == STEP._asdict() | {"copies to send": 2400}
    assert Layout("ddp", 8, copies_gradients=False).memory(STEP, tiny_backbone()) == STEP._asdict()


def test_fsdp_divides() -> None:
    """Weights, gradients and optimizer state by the devices; not what a device's own batch needs."""
    backbone = tiny_backbone(n_layer=3)
    rows = Layout("fsdp", 8).memory(STEP, backbone)
    block = 4 * sum(p.numel() for p in backbone.blocks[0].parameters())
    tables = 4 * backbone.num_parameters() - 3 * block
    gathered = {"gathered weights": tables + 2 * block}
    divided = {"weights": 600, "gradients": 300, "optimizer": 1200}
    assert rows == STEP._asdict() | divided | gathered


def test_tensor_parallel_divides_the_matrices() -> None:
    """Those inside the blocks; tables, norms and biases are on each device."""
    backbone = tiny_backbone(n_layer=3)
    matrices = sum(p.numel() for name, p in backbone.named_parameters() if name.startswith("blocks") and p.ndim == 2)
    share = 1 - matrices / backbone.num_parameters() * (1 - 1 / 2)
    rows = Layout("tensor_parallel", 1, 2).memory(STEP, backbone)
    assert rows["weights"] == round(4800 * share)
    assert rows["activations"] == STEP.activations


@pytest.mark.parametrize(
    ("option", "configured", "expected"),
    [
        (None, "auto", ("ddp", 6, 1)),
        (None, "ddp_find_unused_parameters_true", ("ddp", 6, 1)),
        (None, "fsdp", ("fsdp", 6, 1)),
        (None, Namespace(class_path=f"{LIGHTNING}FSDPStrategy"), ("fsdp", 6, 1)),
        (None, Namespace(class_path=f"{LIGHTNING}ModelParallelStrategy"), ("tensor_parallel", 2, 3)),
        (
            None,
            Namespace(class_path=f"{LIGHTNING}ModelParallelStrategy", init_args=Namespace(tensor_parallel_size=1)),
            ("tensor_parallel", 6, 1),
        ),
        ("tensor_parallel", "auto", ("tensor_parallel", 2, 3)),
        ("fsdp", "ddp", ("fsdp", 6, 1)),
    ],
)
def test_where_the_layout_comes_from(option, configured, expected) -> None:
    """Two machines of three devices: the option, or else the name or class that the Trainer is given."""
    found = layout(option, configured, devices=3, nodes=2)
    assert (found.strategy, found.data, found.tensor) == expected
    assert found.devices == 6


def test_ddp_that_sends_the_gradients_themselves() -> None:
    configured = Namespace(class_path=f"{LIGHTNING}DDPStrategy", dict_kwargs={"gradient_as_bucket_view": True})
    assert not layout(None, configured, 3, 2).copies_gradients


@pytest.mark.parametrize(
    ("option", "configured", "words"),
    [
        ("zero", "auto", "--strategy zero is not known"),
        (None, "deepspeed", "say --strategy"),
        (
            None,
            Namespace(class_path=f"{LIGHTNING}ModelParallelStrategy", init_args=Namespace(tensor_parallel_size=4)),
            "groups of 4",
        ),
    ],
)
def test_refusals(option, configured, words) -> None:
    with pytest.raises(ValueError, match=words):
        layout(option, configured, devices=3, nodes=2)
