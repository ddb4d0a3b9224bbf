"""How much memory loading takes, in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from tiny_gpt2 import CONFIG, tensors

# Anonymous memory alone: pages of the mapped file count as resident, and the system takes them back when it needs them.
MEASURE = """
import sys, threading, time
from lit_llm import GPT
from lit_llm.weights.open import open_source

def anonymous():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon")) * 1024

GPT.from_pretrained(sys.argv[1])  # imports, and what they keep
before, peak, done = anonymous(), 0, False

def watch():
    global peak
    while not done:
        peak = max(peak, anonymous())
        time.sleep(0.001)

thread = threading.Thread(target=watch)
thread.start()
backbone = GPT.from_pretrained(sys.argv[2])
done = True
thread.join()
print((max(peak, anonymous()) - before) / sum(p.numel() * 4 for p in backbone.parameters()))
"""


def grown(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """As wide as makes 100 MB of two layers: every axis of the width 24 is 42 times as long."""
    return torch.zeros([size if size in (97, 11) else size * 42 for size in tensor.shape])


def test_peak_memory_is_that_of_the_weights(tmp_path: Path) -> None:
    """At most 1.15 times the weights, of about 100 MB."""
    for name, scale in (("small", 1), ("large", 42)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(CONFIG | {"n_embd": 24 * scale}))
        stored = tensors() if scale == 1 else {key: grown(key, tensor) for key, tensor in tensors().items()}
        save_file(stored, tmp_path / name / "model.safetensors")
    assert (tmp_path / "large" / "model.safetensors").stat().st_size > 90e6
    args = [sys.executable, "-c", MEASURE, str(tmp_path / "small"), str(tmp_path / "large")]
    done = subprocess.run(args, capture_output=True, text=True, check=True, timeout=120)
    assert 0.9 < float(done.stdout) < 1.15
