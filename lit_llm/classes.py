"""What data and model on the command line both have or both lack: classes of texts, pairs of answers."""

from importlib import import_module
from typing import Any

from lit_llm.data.base import TextDataModule
from lit_llm.modules.base import BaseModule
from lit_llm.modules.classification import Classification
from lit_llm.modules.instruction_tuning import InstructionTuning
from lit_llm.modules.preference_tuning import PreferenceTuning


def refuse_mismatch(model: str, data: str) -> None:
    """Refuse a model that tells classes apart, compares answers or learns to answer, on data without any.

    Args:
        model: Class path of the model.
        data: Class path of the data.

    Raises:
        ValueError: If they do not belong together, that way or the other way round.
    """
    wanted, given = _class(model), _class(data)
    if not (isinstance(wanted, type) and isinstance(given, type)):
        return  # functions that make one
    has_classes = given.class_names is not TextDataModule.class_names  # type: ignore[attr-defined]
    kinds = {
        "texts with classes": (issubclass(wanted, Classification), has_classes),
        "pairs of answers": (issubclass(wanted, PreferenceTuning), hasattr(given, "pairs_dataloader")),
    }
    for what, (tells, has) in kinds.items():
        if tells != has:
            need, lack = (wanted, given) if tells else (given, wanted)
            raise ValueError(
                f"{wanted.__name__} and {given.__name__} do not belong together: {need.__name__} is about {what}, and "
                f"{lack.__name__} knows none; change --{'data' if tells else 'model'}"
            )
    if issubclass(wanted, InstructionTuning) and not hasattr(given, "sample_questions"):
        raise ValueError(
            f"{wanted.__name__} learns from conversations, and {given.__name__} has none; change --data, or train "
            "LanguageModeling on it"
        )


def refuse_other_classes(path: str, checkpoint: dict[str, Any], model: BaseModule) -> None:
    """Refuse a checkpoint whose classes are not those of the data.

    Args:
        path: What to call the checkpoint.
        checkpoint: As `read_checkpoint` gives it.
        model: Made with the names that the data has.

    Raises:
        ValueError: If they differ, or come in another order.
    """
    old, new = checkpoint["hyper_parameters"].get("class_names"), getattr(model, "class_names", None)
    if old is not None and new is not None and list(old) != list(new):
        raise ValueError(
            f"'{path}' tells the classes {', '.join(old)} apart, and those of the data are {', '.join(new)}; use the "
            "data of that run, or start a new one from its backbone by --model.init_from"
        )


def _class(path: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        return getattr(import_module(module), name, None)
    except ImportError:
        return None
