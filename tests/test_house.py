"""The rules of the house that a machine can check: who imports whom, what stays light, how long files are."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lit_llm"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
OWN_TREE = ("lit_llm", "configs", "experiments", "benchmarks", "tests", ".ci")

# What a part of the package may import of the package; the longest name that fits a module counts. Nothing beyond:
# a new room says here whom it knows.
# For every command, so they load nothing heavy.
PLAIN = {f"lit_llm.{name}" for name in ("usage", "sentences", "config_files", "tables", "terminal")}
SERVING = ("loop_counts", "optim", "losses", "parallel", "preference_losses", "tensor_parallel", "trainable")
SERVING_MODULES = {f"lit_llm.training.{name}" for name in SERVING}
MAY_IMPORT: dict[str, set[str]] = {
    "lit_llm": {"lit_llm.backbone"},  # for `from lit_llm import GPT`, on first use
    "lit_llm.__main__": {"lit_llm"},
    "lit_llm.cli": {"lit_llm"},
    "lit_llm.run_config": PLAIN | {"lit_llm.training.logger"},
    "lit_llm.checks": {"lit_llm.data.base", "lit_llm.training"},
    "lit_llm.lightning_settings": {"lit_llm.training"},
    "lit_llm.classes": {"lit_llm.data", "lit_llm.modules"},
    "lit_llm.results": {"lit_llm.training.items"},
    "lit_llm.resume": {"lit_llm.classes", "lit_llm.data", "lit_llm.modules", "lit_llm.weights"} | PLAIN,
    "lit_llm.failures": {"lit_llm.training"},
    **dict.fromkeys(PLAIN, PLAIN),
    "lit_llm.batch": set(),
    "lit_llm.init_from": {"lit_llm.weights", "lit_llm.modules", "lit_llm.data", *PLAIN},
    "lit_llm.backbone": {"lit_llm.backbone"},
    "lit_llm.backbone.gpt": {"lit_llm.backbone", "lit_llm.weights.open"},  # for GPT.from_pretrained, when it is called
    "lit_llm.weights": {"lit_llm.weights", "lit_llm.backbone", *PLAIN},
    "lit_llm.weights.exporting": {"lit_llm.weights", "lit_llm.backbone", "lit_llm.data"},  # the tokenizer goes out, too
    "lit_llm.data": {"lit_llm.data", "lit_llm.batch", *PLAIN},
    "lit_llm.data.pretrained": {"lit_llm.data", "lit_llm.weights"},  # a tokenizer lies where its model is
    "lit_llm.modules": {"lit_llm.modules", "lit_llm.backbone", "lit_llm.weights", "lit_llm.batch", *SERVING_MODULES},
    "lit_llm.inference": {"lit_llm.inference", "lit_llm.backbone", "lit_llm.weights", "lit_llm.data", *PLAIN},
    # A trained classifier is a module, not only a backbone.
    "lit_llm.inference.classify": {
        f"lit_llm.{room}" for room in ("modules", "batch", "weights", "data", "inference.device", "inference.options")
    }
    | PLAIN,
    "lit_llm.evaluation.baselines": {  # scored as the model is
        "lit_llm.modules.classification_metrics",
        "lit_llm.training",
        "lit_llm.batch",
    },
    "lit_llm.training": {f"lit_llm.{room}" for room in ("training", "backbone", "weights", "data", "inference")},
    "lit_llm.training.heap": set(),
    "lit_llm.training.float32": {"lit_llm.backbone"},
    "lit_llm.training.optim": set(),
    "lit_llm.training.losses": {"lit_llm.batch"},
    "lit_llm.evaluation": {
        f"lit_llm.{room}" for room in ("evaluation", "backbone", "weights", "data", "inference", "batch")
    }
    | PLAIN,
    # Above the command line: they take the config of a fit.
    "lit_llm.cli_command": {"lit_llm.cli"},
    "lit_llm.costs": {"lit_llm.costs", "lit_llm.cli", "lit_llm.cli_command", "lit_llm.batch", *PLAIN},
    "lit_llm.show": {f"lit_llm.{name}" for name in ("show", "cli", "cli_command", "batch", "data")} | PLAIN,
    "lit_llm.training.parallel": {"lit_llm.training.optim", "lit_llm.training.tensor_parallel"},
    "lit_llm.training.tensor_parallel": {"lit_llm.backbone"},
    "lit_llm.training.trainable": {"lit_llm.backbone", "lit_llm.tables"},
}
TORCH_ALONE = ("lit_llm.backbone", "lit_llm.batch", *SERVING_MODULES)


def inside(module: str, room: str) -> bool:
    return module == room or module.startswith(f"{room}.")


def imports(path: Path) -> Iterator[str]:
    """Modules that a file imports anywhere in it, late imports too; of a name from a package, the module it is."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in MODULES else str(node.module)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_in_one_direction(module: str) -> None:
    room = max((room for room in MAY_IMPORT if inside(module, room) and room != "lit_llm"), key=len, default="lit_llm")
    assert room != "lit_llm" or module == "lit_llm", f"{module} is in no room that MAY_IMPORT names"
    own = {name for name in imports(MODULES[module]) if inside(name, "lit_llm")}
    assert not {name for name in own if not any(inside(name, allowed) for allowed in MAY_IMPORT[room])}


@pytest.mark.parametrize("module", [m for m in MODULES if any(inside(m, room) for room in TORCH_ALONE)])
def test_the_network_and_its_optimizers_know_torch_alone(module: str) -> None:
    others = {name.partition(".")[0] for name in imports(MODULES[module])} - {"lit_llm", "torch"}
    assert others <= sys.stdlib_module_names


def test_data_and_modules_meet_in_the_batch() -> None:
    """The one thing that both import."""
    for room in ("lit_llm.data", "lit_llm.modules"):
        assert any("lit_llm.batch" in imports(path) for name, path in MODULES.items() if inside(name, room))


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("lit_llm", ["torch", "lightning", "numpy", "datasets"]),
        ("lit_llm.__main__", ["torch", "lightning", "numpy", "datasets"]),
        ("lit_llm.usage", ["torch", "lightning", "numpy", "datasets"]),
        ("lit_llm.backbone", ["lightning", "datasets", "jsonargparse"]),
        ("lit_llm.inference.text", ["lightning", "datasets"]),
        ("lit_llm.evaluation.compare", ["torch", "lightning", "datasets", "numpy", "matplotlib"]),
        ("lit_llm.evaluation.sweep", ["torch", "lightning", "datasets", "numpy", "matplotlib"]),
    ],
)
def test_what_need_not_be_loaded_is_not(module: str, heavy: list[str]) -> None:
    code = f"import sys, {module}; print(*[name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == []


def own_files() -> list[Path]:
    """Every text file that belongs to the project."""
    below = [path for folder in OWN_TREE for path in (ROOT / folder).rglob("*") if path.is_file()]
    at_the_root = [p for p in ROOT.iterdir() if p.is_file() and p.name != "LICENSE"]
    return [p for p in below + at_the_root if p.suffix in (".py", ".md", ".yaml", ".toml", ".txt", ".sh", "")]


def test_no_file_of_the_package_is_too_long() -> None:
    assert not {name: n for name, path in MODULES.items() if (n := len(path.read_text().splitlines())) > 300}
    configs = {path: len(path.read_text().splitlines()) for path in (ROOT / "configs").rglob("*.yaml")}
    assert not {path: n for path, n in configs.items() if n > 60}


def test_nothing_is_called_utils() -> None:
    assert not [path for path in own_files() if path.stem in ("utils", "util", "helpers", "misc", "common")]


def test_open_ends_are_in_issues_and_not_in_files() -> None:
    """The words are put together here, so that this file does not hold them."""
    words = "|".join(("TO" + "DO", "FIX" + "ME", "X" * 3, "HA" + "CK"))
    marked = [path for path in own_files() if re.search(rf"\b({words})\b", path.read_text(encoding="utf-8"))]
    assert not marked


def test_no_path_of_one_machine() -> None:
    """Absolute paths into somebody's home or work folder; addresses on the web have them, too."""
    path_of_a_machine = re.compile(r"(?<![\w.~$}])/(?:home|root|work|Users|scratch)/[\w.]")
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in own_files()
        for line in path.read_text(encoding="utf-8").splitlines()
        if path_of_a_machine.search(line)
    ]
    assert not found
