"""Where the time of a step goes, told by the marks that Lightning sets for its profilers."""

import time
from collections.abc import Callable

from lightning.pytorch.profilers import Profiler

# The last word of an action, and whose time it is. What has no entry is Lightning's own, its hooks and callbacks.
PARTS = {
    "train_dataloader_next": "data",
    "on_before_batch_transfer": "data",
    "transfer_batch_to_device": "data",
    "on_after_batch_transfer": "data",
    "batch_to_device": "data",
    "training_step": "forward",
    "backward": "backward",
    "optimizer_zero_grad": "optimizer",
    "configure_gradient_clipping": "optimizer",
    "optimizer_step": "optimizer",
    "lr_scheduler_step": "optimizer",
}
NAMES = ("data", "forward", "backward", "optimizer", "callbacks", "lightning")


class SplitProfiler(Profiler):
    """Splits the time while it is running into data, forward, backward, optimizer, callbacks, and Lightning's rest.

    An action is charged with what it takes itself, without the actions inside it: an optimizer's step calls forward
    and backward. So the parts add up to the whole.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seconds = dict.fromkeys(NAMES, 0.0)
        self._synchronize: Callable[[], None] | None = None  # None: not running
        self._within: list[str] = []
        self._last = 0.0

    def run(self, synchronize: Callable[[], None]) -> None:
        """Start the clock.

        Args:
            synchronize: Waits for the device, wherever a part begins and ends.
        """
        self._synchronize, self._within, self._last = synchronize, [], time.perf_counter()

    def halt(self) -> None:
        """Stop the clock."""
        self._charge()
        self._synchronize = None

    def start(self, action_name: str) -> None:
        """Charge what went on until now; from here on it is this action."""
        if self._synchronize is None:
            return
        callback = action_name.startswith("[Callback]")
        self._charge()
        self._within.append("callbacks" if callback else PARTS.get(action_name.rpartition(".")[2], "lightning"))

    def stop(self, action_name: str) -> None:
        """Charge the action; one that began before the clock did is not known."""
        if self._synchronize is not None and self._within:
            self._charge()
            self._within.pop()

    def _charge(self) -> None:
        assert self._synchronize is not None
        part = self._within[-1] if self._within else "lightning"
        self._synchronize()
        now = time.perf_counter()
        self.seconds[part] += now - self._last
        self._last = now
