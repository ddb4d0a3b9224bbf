"""What trains: which parameters, from which step or epoch on, and what that costs in memory."""

import re
from collections.abc import Collection, Iterator
from fnmatch import fnmatchcase
from typing import Any

from torch import nn
from torch.distributed.tensor import DTensor
from torch.optim import SGD, Adagrad, Adam, AdamW, Muon, Optimizer, RMSprop

from lit_llm.backbone.lora import adapter_names
from lit_llm.tables import count

Rule = list[str] | str
Trainable = dict[int, Rule] | Rule | None

LAST_BLOCKS = re.compile(r"last_(\d+)_blocks?")
# Copies of a parameter that each optimizer keeps; what it keeps by its settings stands in `state_copies`.
COPIES: dict[type, int] = {Adam: 2, AdamW: 2, Muon: 1, Adagrad: 1, RMSprop: 1, SGD: 0}


class Stages:
    """What trains of a module, as a function of the step or the epoch and of nothing else.

    Gradual unfreezing, from the head down, is ULMFiT's (Howard and Ruder, 2018, https://arxiv.org/abs/1801.06146).

    Args:
        module: It has a `backbone`; what else it has is its head, beside the backbone's own where that is used.
        rules: `all`, `head`, `last_2_blocks` (with the last norm and the head), patterns of names of parameters or
            modules; a list of these; or a dict of them, by the step or epoch from which on each holds. None: all, or,
            where there are adapters, these and what lies outside the backbone.
        uses_head: Whether the loss needs the backbone's own head.

    Raises:
        ValueError: If a pattern matches no parameter, there are not so many blocks, or nothing is said of the start.
    """

    def __init__(self, module: Any, rules: Trainable, uses_head: bool = True) -> None:
        # Checkpoints and config files have words for keys.
        stages = {int(start): rule for start, rule in rules.items()} if isinstance(rules, dict) else {0: rules}
        if min(stages, default=1) != 0:
            said = f"begins at {min(stages)}" if stages else "is empty"
            raise ValueError(
                f"the schedule of trainable {said}; say what trains from 0 on, as in '{{0: head, 100: all}}'"
            )
        self.rules = rules
        self.stages = {start: frozenset(trained(module, rule, uses_head)) for start, rule in sorted(stages.items())}
        self.ever = frozenset().union(*self.stages.values())

    def at(self, count: int) -> frozenset[str]:
        """Names of the parameters that train at a step or in an epoch."""
        return self.stages[max(start for start in self.stages if start <= count)]

    @property
    def is_fixed(self) -> bool:
        """Whether the same trains all the time."""
        return set(self.stages.values()) == {self.ever}

    def refuse_devices(self, count: int) -> None:
        """Refuse a schedule on several devices.

        Args:
            count: Devices of the run.

        Raises:
            ValueError: If it is.
        """
        if count > 1 and not self.is_fixed:
            raise ValueError(
                f"the schedule of trainable {self.rules} needs a single device: several agree once, at the start, "
                "on the gradients that they exchange; let the same train all the time, or say --trainer.devices 1"
            )


def trained(module: Any, rule: Rule | None, uses_head: bool = True) -> set[str]:
    """Names of the parameters that a rule lets train; adapters always do.

    Args:
        module: As in `Stages`.
        rule: As in `Stages`, of one stage.
        uses_head: As in `Stages`.

    Raises:
        ValueError: If a pattern matches no parameter, or there are not so many blocks.
    """
    names = [name for name, _ in module.named_parameters() if uses_head or not name.startswith("backbone.head.")]
    adapters = adapter_names(module)
    if rule is None:
        outside = {name for name in names if not name.startswith("backbone.")}
        return adapters | outside if adapters else set(names)
    words = [rule] if isinstance(rule, str) else rule
    if not words:
        raise ValueError("trainable [] lets nothing train; say all, head, last_1_blocks or a pattern of names")
    return adapters.union(*(_matched(module, word, names, uses_head) for word in words))


def _matched(module: Any, word: str, names: list[str], uses_head: bool) -> set[str]:
    if word == "all":
        return set(names)
    found = {name for name in names if _is_of_head(module, name, uses_head)}
    if last := LAST_BLOCKS.fullmatch(word):
        number, blocks = int(last[1]), len(module.backbone.blocks)
        if not 1 <= number <= blocks:
            raise ValueError(f"trainable '{word}' cannot be: there are {blocks} blocks in the backbone")
        upper = ("backbone.norm.", *(f"backbone.blocks.{blocks - 1 - i}." for i in range(number)))
        return found | {name for name in names if name.startswith(upper)}
    if word != "head":
        forms = [form for pattern in (word, f"backbone.{word}") for form in (pattern, f"{pattern}.*")]
        found = {name for name in names if any(fnmatchcase(name, form) for form in forms)}
    if not found:
        example = next((name for name in names if name.startswith("backbone.blocks.")), names[-1])
        raise ValueError(
            f"trainable '{word}' matches no parameter that can train; it is all, head, last_1_blocks or a pattern of "
            f"names such as {example}"
        )
    return found


def _is_of_head(module: Any, name: str, uses_head: bool) -> bool:
    """Whether a parameter is of the last layer: outside the backbone, or its head; a tied one is the token table."""
    if not name.startswith("backbone."):
        return True
    if not uses_head:
        return False
    is_tied = not any(parameter.ndim > 1 for parameter in module.backbone.head.parameters())
    return name.startswith("backbone.head.") or (is_tied and name == "backbone.embedding.tokens.weight")


def set_gradients(module: nn.Module, names: Collection[str]) -> None:
    """Let these parameters ask for gradients, and no others."""
    for name, parameter in module.named_parameters():
        if parameter.requires_grad != (name in names):
            parameter.requires_grad_(name in names)


def frozen_parts(module: Any, names: frozenset[str]) -> list[nn.Module]:
    """The parts of which no parameter trains: the whole backbone, or its embedding and blocks; other layers.

    In eval mode they drop nothing out. A block is one part: dropout has no parameters that would tell whose it is.

    Args:
        module: As in `Stages`.
        names: What trains.
    """
    frozen: list[nn.Module] = []
    for name, part in parts(module):
        own = [f"{name}.{inner}" for inner, _ in part.named_parameters()]
        if own and not names & set(own):
            frozen.append(part)
    if not any(name.startswith("backbone.") for name in names):
        frozen.append(module.backbone)
    return frozen


def parts(module: Any) -> Iterator[tuple[str, nn.Module]]:
    """The layers of a module from the bottom to the top, by name: embedding, blocks, norm, heads."""
    for name, child in module.named_children():
        if name != "backbone":
            continue
        for inner, part in child.named_children():
            if inner != "blocks":
                yield f"backbone.{inner}", part
                continue
            yield from ((f"backbone.blocks.{number}", block) for number, block in part.named_children())
    yield from ((name, child) for name, child in module.named_children() if name != "backbone")


def state_copies(optimizer: Optimizer, group: dict[str, Any]) -> int | None:
    """How many numbers an optimizer keeps for each of a parameter; None if its kind is not known here."""
    for inner in getattr(optimizer, "parts", {}).values():
        if any(group is own for own in inner.param_groups):
            return state_copies(inner, group)
    copies = COPIES.get(type(optimizer))
    if copies is None:
        return None
    extra = (group.get("amsgrad"), group.get("centered"), type(optimizer) is not Muon and group.get("momentum"))
    return copies + sum(map(bool, extra))


def memory(optimizer: Optimizer, parameters: Collection[nn.Parameter]) -> tuple[int, int | None]:
    """Bytes of the gradients and of the optimizer's state on this device; the latter None where it is not known.

    Args:
        optimizer: It holds all that will ever train.
        parameters: What trains now; the rest has neither.
    """
    chosen = {id(parameter) for parameter in parameters}
    gradients, state = 0, 0
    known = True
    for group in optimizer.param_groups:
        held = (p.to_local() if isinstance(p, DTensor) else p for p in group["params"] if id(p) in chosen)
        size = sum(parameter.nbytes for parameter in held)
        copies = state_copies(optimizer, group)
        known &= copies is not None
        gradients, state = gradients + size, state + size * (copies or 0)
    return gradients, state if known else None


def overview(module: Any, names: Collection[str], optimizer: Optimizer) -> str:
    """A table of what trains: parameters by part, their share, and the memory that training them takes.

    Args:
        module: As in `Stages`.
        names: What trains.
        optimizer: The module's.
    """
    rows: list[tuple[str, int, int]] = []
    adapters = adapter_names(module)
    for name, part in parts(module):
        own = {f"{name}.{inner}": parameter.numel() for inner, parameter in part.named_parameters()}
        plain = [key for key in own if key not in adapters]
        if plain:
            rows.append(
                (name.removeprefix("backbone."), sum(own[k] for k in plain), sum(own[k] for k in plain if k in names))
            )
    sizes = {name: parameter.numel() for name, parameter in module.named_parameters()}
    if adapters:
        size = sum(sizes[name] for name in adapters)
        rows.append(("adapters", size, size))
    rows = [*_joined(rows), ("all", sum(sizes.values()), sum(size for name, size in sizes.items() if name in names))]
    gradients, state = memory(optimizer, [p for name, p in module.named_parameters() if name in names])
    kept = "of a kind whose state is not known" if state is None else f"{state / 1e6:,.1f} MB"
    width = max(len(name) for name, _, _ in rows)
    lines = [f"{'what trains':{width}}  parameters  trained   share"]
    lines += [f"{name:{width}}  {count(all):>10}  {count(own):>7}  {own / all:6.1%}" for name, all, own in rows]
    return "\n".join([*lines, f"gradients {gradients / 1e6:,.1f} MB, optimizer {kept}"])


def _joined(rows: list[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    """Blocks that are alike in one row."""
    joined: list[tuple[str, int, int]] = []
    for name, size, own in rows:
        last = joined[-1] if joined else ("", 0, 0)
        first, _, number = name.partition(".")
        share_is_equal = last[1] > 0 and own * last[1] == last[2] * size
        if first == "blocks" and last[0].startswith("blocks") and share_is_equal:
            start = last[0].partition(" ")[2].partition("-")[0]
            joined[-1] = (f"blocks {start}-{number}", last[1] + size, last[2] + own)
        else:
            joined.append((name.replace("blocks.", "blocks "), size, own))
    return joined
