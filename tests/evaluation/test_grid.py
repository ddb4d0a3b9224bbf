"""Grid files: what they mean, and what is refused."""

from pathlib import Path

import pytest
from cli_runs import write_yaml

from lit_llm.evaluation.grid import read_grid


def test_variants_and_axes_multiply(tmp_path: Path) -> None:
    """Overlays lie beside the grid; each variant is combined with all points of the axes."""
    overlay = write_yaml(tmp_path / "muon.yaml", {"model": {}})
    content = {
        "variants": {"plain": {}, "muon": {"config": "muon.yaml", "model.backbone.norm": None}},
        "axes": {"model.optimizer.lr": [0.001, 0.0003], "data.source": ["books/one.txt", "two"]},
    }
    made = {variant.name: variant.options for variant in read_grid(write_yaml(tmp_path / "grid.yaml", content))}
    points = [f"lr={rate},source={source}" for rate in (0.001, 0.0003) for source in ("one.txt", "two")]
    assert list(made) == [f"{name}_{point}" for name in ("plain", "muon") for point in points]
    assert made["plain_lr=0.001,source=one.txt"] == ("--model.optimizer.lr=0.001", "--data.source=books/one.txt")
    assert made["muon_lr=0.0003,source=two"] == (
        *("-c", str(overlay), "--model.backbone.norm=null"),
        *("--model.optimizer.lr=0.0003", "--data.source=two"),
    )


def test_axes_alone(tmp_path: Path) -> None:
    grid = write_yaml(tmp_path / "grid.yaml", {"axes": {"model.trainable": ["head", "last_1_blocks"]}})
    assert [variant.name for variant in read_grid(grid)] == ["trainable=head", "trainable=last_1_blocks"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "is empty"),
        ("{}", "is empty"),
        ("a: [1, 2", "is no YAML"),
        ({"grid": {}}, "has the part 'grid'; there are variants and axes"),
        ({"variants": ["a"]}, "the part 'variants' of the grid .* is no mapping of names to options"),
        ({"variants": {"a": 3}}, "the variant 'a' .* is no mapping of options to values"),
        ({"variants": {"a": {"config": "gone.yaml"}}}, "names the config '.*gone.yaml', which is no file"),
        ({"variants": {"a/b": {}}}, "has the variant 'a/b', which names no folder"),
        ({"variants": {"a": {"seed_everything": 3}}}, "sets 'seed_everything', which the sweep sets itself"),
        ({"variants": {"a": {"trainer.logger.name": "x"}}}, "sets 'trainer.logger.name'"),
        ({"axes": {"model.lr": 3}}, "the axis 'model.lr' of .* is no list of values"),
        ({"axes": {"model.a.lr": [1, 1]}}, "has two variants with the name 'lr=1'"),
    ],
)
def test_refusals(content, told, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=told):
        read_grid(write_yaml(tmp_path / "grid.yaml", content))
