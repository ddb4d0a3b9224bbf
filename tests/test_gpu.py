"""A life on a GPU: fit, go on, generate, classify; and the loss by its kernels. Run by `pytest -m gpu`."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from cli_runs import call, refusal, run_folders, write_tiny
from text_runs import write_classification

from lit_llm.batch import IGNORE_INDEX
from lit_llm.training.losses import LinearCrossEntropy

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings(
        "ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"
    ),  # compilers
]
ON_GPU = ("--trainer.accelerator=gpu", "--trainer.devices=1")
FAST = ("--trainer.precision=bf16-mixed", "--model.compile=true", "--model.loss=LinearCrossEntropy")


@pytest.fixture(scope="module", autouse=True)
def gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU")


def best_loss(folder: Path) -> float:
    """On the validation text, by the last checkpoint."""
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True, map_location="cpu")
    scores = [state.get("best_model_score") for state in checkpoint["callbacks"].values()]
    return float(next(score for score in scores if score is not None))


@pytest.mark.parametrize("options", [(), FAST], ids=["plain", "fast"])
def test_a_run_learns_what_it_learns_on_a_cpu_and_goes_on(tmp_path, capsys, options) -> None:
    config = write_tiny(tmp_path)
    assert call(capsys, "fit", "-c", config).code == 0
    assert call(capsys, "fit", "-c", config, *ON_GPU, *options).code == 0
    assert call(capsys, "fit", "-c", config, *ON_GPU, *options, "--trainer.max_steps=6", "--ckpt_path=last").code == 0
    on_cpu, on_gpu, longer = (best_loss(run) for run in run_folders(tmp_path))
    assert on_gpu == pytest.approx(on_cpu, rel=0.02)  # products of 8 bits, or of TF32's 10
    assert longer < on_gpu


def test_texts_are_those_of_a_cpu(tmp_path, capsys) -> None:
    """Greedy ones, in fp32, also with a draft and in a batch; rounded weights write some text."""
    config = write_tiny(tmp_path)
    assert call(capsys, "fit", "-c", config, "--data.block_size=64", "--trainer.max_steps=30").code == 0
    (tmp_path / "prompts.txt").write_text("the cat\na\n")
    asked = ("generate", "--checkpoint", run_folders(tmp_path)[0], "--temperature=0", "--max_new_tokens=40")
    for options in (("--prompt=the", "--draft", run_folders(tmp_path)[0]), ("--prompts", tmp_path / "prompts.txt")):
        texts = [call(capsys, *asked, *options, f"--device={device}") for device in ("cpu", "cuda", "cuda:0")]
        assert texts[0].code == 0
        assert texts[0].out == texts[1].out == texts[2].out
    for dtype in ("bf16", "int8"):
        written = call(capsys, *asked, "--prompt=the cat", f"--dtype={dtype}")
        assert written.code == 0
        assert len(written.out) == len("the cat") + 40 + 1
    assert "choose cpu or cuda or cuda:0" in refusal(call(capsys, *asked, "--prompt=the", "--device=cuda:99"))


def test_classes_are_those_of_a_cpu(tmp_path, capsys) -> None:
    config = write_classification(tmp_path)
    assert call(capsys, "fit", "-c", config, *ON_GPU).code == 0
    asked = ("classify", "--checkpoint", run_folders(tmp_path)[0], "win now", "see you at home")
    on_gpu, on_cpu = call(capsys, *asked), call(capsys, *asked, "--device=cpu")
    assert (on_gpu.code, on_cpu.code) == (0, 0)
    rows = zip(on_gpu.out.splitlines(), on_cpu.out.splitlines(), strict=True)
    for one, other in ((row.split("\t"), twin.split("\t")) for row, twin in rows):
        assert one[0] == other[0]
        assert float(one[1]) == pytest.approx(float(other[1]), abs=1e-3)  # TF32


@pytest.mark.parametrize("compiles", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_chunked_loss_is_the_plain_one(smoothing: float, compiles: bool) -> None:
    """Of an odd vocabulary, which is padded; in bfloat16 to the precision of its products, 8 bits."""
    torch.manual_seed(0)
    hidden, weight = torch.randn(300, 64, device="cuda"), torch.randn(1031, 64, device="cuda")
    targets = torch.randint(1031, (300,), device="cuda")
    targets[::7] = IGNORE_INDEX
    loss = LinearCrossEntropy(128, smoothing)
    if compiles:
        loss.compile()

    def plain(x: torch.Tensor, matrix: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(F.linear(x, matrix).float(), targets, reduction="sum", label_smoothing=smoothing)

    for precise, tolerance in ((True, 1e-5), (False, 0.02)):
        found = []
        for function in (loss, plain):
            x, matrix = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
            with torch.autocast("cuda", torch.bfloat16, enabled=not precise):
                total = function(x, matrix, targets)
            found.append((total.detach(), *torch.autograd.grad(total, (x, matrix))))
        for ours, theirs in zip(*found, strict=True):
            assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max()
