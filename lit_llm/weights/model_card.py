"""The README.md of an exported model: what it is, what it was trained on, and how well it did."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from lit_llm.weights.source import Source


def model_card(
    source: Source,
    checkpoint: dict[str, Any],
    parameters: int,
    model_type: str | None,
    threshold: float | None = None,
) -> str:
    """A model card with the YAML header that the Hugging Face hub reads.

    Args:
        source: Where it comes from; the configuration of a checkpoint's run lies one folder above.
        checkpoint: What it holds beside the weights, if it is a checkpoint.
        parameters: Numbers in the weights.
        model_type: Its family. None: in our own layout.
        threshold: Of a classifier, from which probability on the second of two classes is answered. None: no such one.
    """
    task = "text-generation" if source.is_language_model else "text-classification"
    header = {"tags": ["lit-llm", *([model_type] if model_type else [])], "pipeline_tag": task}
    if model_type:
        header["library_name"] = "transformers"
    config = _run_config(Path(source.name)) if checkpoint else {}
    facts = {"parameters": f"{parameters:,}"}
    if checkpoint:
        facts["optimizer steps"] = f"{checkpoint.get('global_step', 0):,}"
    rows = [f"| {name} | {value} |" for name, value in {**facts, **_metrics(checkpoint)}.items()]
    settings = {key: config[key] for key in ("model", "trainer", "seed_everything") if key in config}
    sections = {
        "Results": "\n".join(["| | |", "|---|---|", *rows]),
        "Data": _as_yaml(config.get("data") or _origin(source, checkpoint)),
        "Settings": _as_yaml(settings or source.settings),
    }
    parts = [
        f"# {_name(config, Path(source.name), checkpoint)}",
        _use(model_type) if source.classes is None else _use_classes(source.classes.names, threshold),
        *(f"## {title}\n\n{text}" for title, text in sections.items()),
    ]
    return f"---\n{yaml.safe_dump(header, sort_keys=False)}---\n\n" + "\n\n".join(parts) + "\n"


def _use(model_type: str | None) -> str:
    if model_type is None:
        return "A model in the layout of lit_llm, which `lit-llm` reads."
    return (
        "A language model written by lit_llm.\n\n"
        "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        'model, tokenizer = AutoModelForCausalLM.from_pretrained("."), AutoTokenizer.from_pretrained(".")\n```'
    )


def _use_classes(names: Sequence[str], threshold: float | None) -> str:
    decided = "The most probable class is the answer."
    if threshold is not None:
        decided = (
            f"`lit-llm classify` answers `{names[1]}` from a probability of {threshold:.4f} on (`decision_threshold` "
            "in config.json); the pipeline of transformers answers the more probable class."
        )
    return (
        f"A classifier of texts written by lit_llm. Its classes: {', '.join(f'`{name}`' for name in names)}. {decided} "
        "It was trained on texts without white space around them; longer ones are cut.\n\n"
        '```python\nfrom transformers import pipeline\n\nclassify = pipeline("text-classification", ".", top_k=None)\n'
        "classify([text.strip() for text in texts], truncation=True)\n```"
    )


def _run_config(file: Path) -> dict[str, Any]:
    path = file.parent.parent / "config.yaml"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def _origin(source: Source, checkpoint: dict[str, Any]) -> str:
    if checkpoint:
        return "Of the run, nothing is known but the checkpoint."
    return f"These are the weights of `{source.name}` as they were; its licence is theirs."


def _name(config: dict[str, Any], file: Path, checkpoint: dict[str, Any]) -> str:
    logger = (config.get("trainer") or {}).get("logger")
    named = logger.get("init_args", {}).get("name") if isinstance(logger, dict) else None
    return str(named or (file.stem if checkpoint else file.name))


def _metrics(checkpoint: dict[str, Any]) -> dict[str, str]:
    """What was monitored, when the checkpoint was written."""
    metrics = {}
    for state in (checkpoint.get("callbacks") or {}).values():
        name, value = (state.get(key) if isinstance(state, dict) else None for key in ("monitor", "current_score"))
        if name is not None and value is not None:
            metrics[str(name)] = f"{float(value):.4f}"
            if name == "val/loss":
                metrics["val/perplexity"] = f"{math.exp(min(float(value), 700.0)):.2f}"  # beyond: an overflow
    return metrics


def _as_yaml(content: Any) -> str:
    return content if isinstance(content, str) else f"```yaml\n{yaml.safe_dump(content, sort_keys=False)}```"
