"""What happens around the training loop: measuring, comparing, showing. None of it changes what is learnt."""

import time
from typing import Any

import torch
from lightning.fabric.utilities.throughput import get_available_flops
from lightning.pytorch.callbacks import Callback

from lit_llm.inference.sampling import Sampling
from lit_llm.inference.text import Asked, TextModel
from lit_llm.training.logger import tensorboard


class Throughput(Callback):
    """Logs `tokens` (seen by all devices), `train/tokens_per_second` and `train/model_flops_utilization`.

    The utilization (PaLM, https://arxiv.org/abs/2204.02311, appendix B) appears where the peak of the device is known.
    Time spent validating, saving and sampling does not count.
    """

    logs = ("tokens", "train/tokens_per_second", "train/model_flops_utilization")

    def __init__(self) -> None:
        self.tokens = 0
        self._window: tuple[float, int] | None = None  # seconds and tokens at its start
        self._logged_step = 0
        self._peak: float | None = None
        self._flops_per_token, self._readers = 0, 1

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Count the work of a token while the network is whole, and the devices that read different windows."""
        self._flops_per_token = pl_module.backbone.flops_per_token()
        self._readers = (trainer.distributed_sampler_kwargs or {"num_replicas": 1})["num_replicas"]

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run goes on from."""
        return {"tokens": self.tokens}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self.tokens = state_dict["tokens"]

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Find the peak of the device."""
        device = trainer.strategy.root_device
        if device.type == "cuda":
            kinds = {"bf16": torch.bfloat16, "16": torch.float16}
            kind = kinds.get(str(trainer.precision).split("-")[0], torch.float32)
            self._peak = get_available_flops(device, kind)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Count, and log every n steps."""
        self.tokens += batch.idx.numel() * self._readers
        step, now = trainer.global_step, time.perf_counter()
        if self._window is None:
            self._window = (now, self.tokens)
        if step % trainer.log_every_n_steps == 0 and step > self._logged_step:
            then, before = self._window
            values = {"tokens": float(self.tokens)}
            if self.tokens > before:  # else the clock has just begun
                values |= self._speed((self.tokens - before) / (now - then), trainer)
            pl_module.log_dict(values)
            self._window, self._logged_step = (now, self.tokens), step

    def _speed(self, rate: float, trainer: Any) -> dict[str, float]:
        values = {"train/tokens_per_second": rate}
        if self._peak:
            used = rate * self._flops_per_token / trainer.world_size
            values["train/model_flops_utilization"] = used / self._peak
        return values

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Stop the clock."""
        self._window = None


class ReferenceLines(Callback):
    """Draws the losses of a unigram and a bigram model of the corpus beside the validation loss.

    They are logged as `reference/…` at each validation, share a chart with `val/loss` on TensorBoard's Custom Scalars
    page, and close the run's output.
    """

    logs = ("reference/unigram_loss", "reference/bigram_loss")

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Lay out the chart."""
        logger = tensorboard(trainer)
        if logger is not None and trainer.is_global_zero:
            lines = [f"reference/{name}" for name in trainer.datamodule.reference_losses()]
            chart = {"validation loss and what counting achieves": ["Multiline", ["val/loss", *lines]]}
            logger.experiment.add_custom_scalars({"language modelling": chart})

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Log the lines."""
        losses = trainer.datamodule.reference_losses()
        pl_module.log_dict({f"reference/{name}": loss for name, loss in losses.items()}, sync_dist=True)

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Say how far the model came."""
        metrics = trainer.callback_metrics
        if not trainer.is_global_zero or trainer.fast_dev_run:
            return
        names = {
            "val/loss": "validation loss",
            "reference/bigram_loss": "bigram loss",
            "reference/unigram_loss": "unigram loss",
        }
        rows = {names[name]: f"{float(metrics[name]):.3f} nats a token" for name in names if name in metrics}
        if "val/loss" not in metrics:
            rows["validation loss"] = f"unknown: {why_no_validation(trainer)}"
        if "val/bits_per_byte" in metrics:
            rows["bits per byte"] = f"{float(metrics['val/bits_per_byte']):.3f}"
        rows |= where_to_look(trainer)
        print("\n" + "\n".join(f"{name:16} {value}" for name, value in rows.items()))


def why_no_validation(trainer: Any) -> str:
    """Why a run has no validation loss."""
    if not trainer.datamodule.has("val"):
        return "nothing is held out (data.val_fraction 0)"
    if not trainer.limit_val_batches:
        return "validation is turned off (trainer.limit_val_batches 0)"
    return "no validation in so few steps (trainer.val_check_interval)"


def where_to_look(trainer: Any) -> dict[str, str]:
    """The last lines of a run's output, by name; none without TensorBoard."""
    logger = tensorboard(trainer)
    if logger is None:
        return {}
    return {"run folder": trainer.log_dir, "look at it": f"tensorboard --logdir {logger.save_dir}"}


class SampleText(Callback):
    """Writes what the model makes of a few prompts to TensorBoard's Text page, at each validation.

    Args:
        prompts: Beginnings of texts. None: a few from the validation text.
        max_new_tokens: Tokens to add to each, fewer where the model's positions end.
        temperature: 0 is greedy, 1 samples as trained.
    """

    def __init__(self, prompts: list[str] | None = None, max_new_tokens: int = 64, temperature: float = 0.8) -> None:
        self.prompts, self.max_new_tokens, self.temperature = prompts, max_new_tokens, temperature

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Choose the prompts; one that cannot be continued fails here, not in the middle of the run."""
        data = trainer.datamodule
        prompts = data.sample_prompts() if self.prompts is None else self.prompts
        model = TextModel(pl_module.backbone, data.tokenizer)
        self._chosen: dict[str, int] = {}  # tokens to add to each
        for prompt in prompts:
            room = pl_module.backbone.block_size - len(model.encode(prompt))
            if room < 1:
                raise ValueError(f"the sample prompt {prompt!r} leaves the model no position to write to; shorten it")
            self._chosen[prompt] = min(self.max_new_tokens, room)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Write the samples; the same seed each time, so that what changes is the model."""
        logger = tensorboard(trainer)
        if trainer.state.fn != "fit" or logger is None:
            return
        if not (trainer.is_global_zero or pl_module.is_divided):  # devices that share a network compute together
            return
        backbone, training = pl_module.backbone, pl_module.backbone.training
        model = TextModel(backbone.eval(), trainer.datamodule.tokenizer)
        for number, (prompt, limit) in enumerate(self._chosen.items()):
            with torch.compiler.set_stance("force_eager"):  # each length would be compiled anew
                new = model.complete(prompt, Asked(limit, Sampling(self.temperature)), seed=0)
            # What the model wrote begins at the bar.
            logger.experiment.add_text(f"samples/{number}", verbatim(f"{prompt}|{new}"), trainer.global_step)
        backbone.train(training)


def verbatim(text: str) -> str:
    """Markdown that shows a text as it is: indented by four."""
    return "\n".join(f"    {line}" for line in text.split("\n"))
