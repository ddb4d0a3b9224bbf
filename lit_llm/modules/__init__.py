"""The LightningModules: batch -> loss; optimizers; which layers train."""

from lit_llm.modules.classification import Classification
from lit_llm.modules.instruction_tuning import InstructionTuning
from lit_llm.modules.language_modeling import LanguageModeling
from lit_llm.modules.preference_tuning import PreferenceTuning

__all__ = ["Classification", "InstructionTuning", "LanguageModeling", "PreferenceTuning"]
