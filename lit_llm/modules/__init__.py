"""The LightningModules: batch -> loss; optimizers; which layers train."""

from lit_llm.modules.language_modeling import LanguageModeling

__all__ = ["LanguageModeling"]
