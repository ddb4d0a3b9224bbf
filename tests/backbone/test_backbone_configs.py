"""configs/backbone/: each file builds, and has as many parameters as its first line says."""

import re
from pathlib import Path

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser

from lit_llm import GPT

FOLDER = Path(__file__).parents[2] / "configs" / "backbone"
FILES = sorted(FOLDER.rglob("*.yaml"))
FIRST_LINE = re.compile(r"# ([\d.]+)M parameters at a vocabulary of ([\d,]+)(?: and ([\d,]+) positions)?: ")


def test_all_files_are_found() -> None:
    assert len(FILES) == 8


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_parameters_are_as_many_as_the_first_line_says(path: Path) -> None:
    """To the last digit that it gives; on the meta device, where 8 billion cost nothing."""
    text = path.read_text()
    said = FIRST_LINE.match(text)
    assert said is not None
    millions, vocab_size, positions = said[1], int(said[2].replace(",", "")), said[3]
    block_size = int((positions or "16").replace(",", ""))
    config = yaml.safe_load(text)
    config["init_args"] |= {"vocab_size": vocab_size, "block_size": block_size}
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(GPT, "backbone", required=True)
    with torch.device("meta"):
        backbone = parser.instantiate(parser.parse_object({"backbone": config})).backbone
        logits = backbone(torch.zeros(1, 16, dtype=torch.long))
    assert f"{backbone.num_parameters() / 1e6:.{len(millions.partition('.')[2])}f}" == millions
    assert (backbone.embedding.positions is not None) == (positions is not None)
    assert logits.shape == (1, 16, vocab_size)


def test_a_class_named_in_a_config_starts_from_its_own_defaults() -> None:
    """Not from those of the class that it replaces, which jsonargparse keeps wherever they fit."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(GPT, "backbone", required=True)
    sizes = {"vocab_size": 97, "block_size": 11, "n_layer": 1, "n_head": 4, "n_embd": 24}
    config = {"class_path": "lit_llm.GPT", "init_args": {**sizes, "mlp": "lit_llm.backbone.layers.GatedMLP"}}
    mlp = parser.instantiate(parser.parse_object({"backbone": config})).backbone.blocks[0].mlp
    assert isinstance(mlp.activation, torch.nn.SiLU)
    assert mlp.fc.bias is None
