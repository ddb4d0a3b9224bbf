"""Which checkpoints a run may go on with, or be scored with: those of its own model, classes and tokenizer."""

from typing import Any

from lit_llm.classes import refuse_other_classes
from lit_llm.config_files import flat
from lit_llm.data.base import TextDataModule
from lit_llm.modules.base import BaseModule
from lit_llm.weights.checkpoint import misfits, module_class

PARTS = ("backbone", "pooling", "lora")  # what decides how weights are used
COMPARED = {"weights": "weights", "val_content": "val_source"}  # if a run goes on; and what a message shows of each
OWN_SOURCES = {"weights", "val_source", "val_content", "test_source"}  # change nothing about what is held out
TOKENIZER_NAMES = {"class_path", "name"}  # in its state; what is left decides about the ids


def refuse_foreign(
    path: str, checkpoint: dict[str, Any], model: BaseModule, data: TextDataModule, goes_on: bool = False
) -> None:
    """Refuse a checkpoint of another class, of other classes of texts, of other sizes, or of another tokenizer.

    Args:
        path: What to call it.
        checkpoint: As `read_checkpoint` gives it.
        model: The model of the config.
        data: The data of the config.
        goes_on: Whether the training goes on, and is not only measured.

    Raises:
        ValueError: If it is.
    """
    wrote, wanted = module_class(checkpoint), type(model)
    if wrote is not None and wrote is not wanted:
        raise ValueError(
            f"'{path}' is a checkpoint of {wrote.__qualname__}, and the config names "
            f"{wanted.__qualname__}; --ckpt_path only goes on with the run it came from, and --model.init_from takes "
            "the backbone of any"
        )
    refuse_other_classes(path, checkpoint, model)
    if problems := misfits(model, checkpoint["state_dict"]):
        raise ValueError(
            f"the weights in '{path}' do not fit the model of the config ({problems}); "
            "use the config.yaml that lies in the run folder of the checkpoint"
        )
    is_of_config = "unsaid" not in checkpoint  # a module made in Python says its parts in other words
    if is_of_config and (changed := _changed_parts(checkpoint["hyper_parameters"], dict(model.hparams))):
        raise ValueError(
            f"'{path}' was trained with other parts than the config's ({changed}), which its weights do not show; use "
            "the config.yaml that lies in the run folder of the checkpoint"
        )
    was, now = checkpoint.get("split") or {}, data.split_settings()
    # What is only measured may have a source of its own, whatever was held out of the one that was trained on.
    replaced = {split for split in ("val", "test") if now.get(f"{split}_source") and not goes_on}
    _refuse_other_split(path, was, {name: value for name, value in now.items() if name not in replaced})
    if goes_on:
        _refuse_other_sources(path, was, now)
    states = [checkpoint.get("tokenizer"), data.tokenizer_state()]
    old, new = ({k: v for k, v in (state or {}).items() if k not in TOKENIZER_NAMES} for state in states)
    if states[0] is not None and old != new:
        raise ValueError(
            f"the tokenizer of '{path}' is not that of the data, whose ids mean something else; one for several "
            "texts is made by lit-llm tokenizer train and named by --data.tokenizer TokenizerFile"
        )


def _changed_parts(saved: dict[str, Any], wanted: dict[str, Any]) -> str:
    """What both say of the network and say differently; dropout is no part of what it computes once it is trained."""
    old, new = (dict(flat({name: settings.get(name) for name in PARTS})) for settings in (saved, wanted))
    names = [name for name in old if name in new and old[name] != new[name] and not name.endswith("dropout")]
    return "; ".join(f"model.{name} was {old[name]} and is {new[name]}" for name in names[:3])


def _refuse_other_split(path: str, was: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse to score on texts that were trained on, or to train on texts that were held out."""
    if was and was.get("source") == now.get("source"):
        for name, value in now.items():
            if name not in OWN_SOURCES and was.get(name) != value:
                raise ValueError(
                    f"'{path}' was trained on another split of '{now['source']}' ({name} was {was.get(name)} and is "
                    f"{value}), so that texts held out now have been learnt; leave the split as it was"
                )


def _refuse_other_sources(path: str, was: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse to go on with other weights of the sources, or to compare losses on other validation texts."""
    for name, shown in COMPARED.items():
        if name in was and was[name] != now.get(name):
            raise ValueError(
                f"'{path}' was trained with {shown} {was.get(shown) or 'none'}, and the config says "
                f"{now.get(shown) or 'none'}; leave it as it was, or start a new run"
            )
