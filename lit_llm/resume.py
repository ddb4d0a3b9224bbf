"""Which checkpoints a run may go on with, or be scored with: those of its own model, classes and tokenizer."""

from typing import Any

from lit_llm.classes import refuse_other_classes
from lit_llm.data.base import TextDataModule
from lit_llm.modules.base import BaseModule
from lit_llm.weights.checkpoint import misfits, module_class

TOKENIZER_NAMES = {"class_path", "name"}  # in its state; what is left decides about the ids


def refuse_foreign(path: str, checkpoint: dict[str, Any], model: BaseModule, data: TextDataModule) -> None:
    """Refuse a checkpoint of another class, of other classes of texts, of other sizes, or of another tokenizer.

    Args:
        path: What to call it.
        checkpoint: As `read_checkpoint` gives it.
        model: The model of the config.
        data: The data of the config.

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
    states = [checkpoint.get("tokenizer"), data.tokenizer_state()]
    old, new = ({k: v for k, v in (state or {}).items() if k not in TOKENIZER_NAMES} for state in states)
    if states[0] is not None and old != new:
        raise ValueError(
            f"the tokenizer of '{path}' is not that of the data, whose ids mean something else; one for several "
            "texts is made by lit-llm tokenizer train and named by --data.tokenizer TokenizerFile"
        )
