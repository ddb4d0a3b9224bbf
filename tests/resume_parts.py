"""Callbacks of resumed runs: one that cuts a run short, and some that watch what it reads."""

import json

from lightning import Callback


class Crash(Callback):
    def __init__(self, hook: str, calls: int):
        self.calls = calls
        setattr(self, hook, self.count)

    def count(self, *args):
        self.calls -= 1
        if self.calls < 0:
            raise RuntimeError("crash")


class Batches(Callback):
    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        with open(trainer.log_dir + "/batches.txt", "a") as file:
            print(trainer.current_epoch, batch_idx, batch.idx.tolist(), file=file)


class Early(Callback):
    def setup(self, trainer, module, stage):
        trainer.fit_loop.setup_data()
        assert next(iter(trainer.train_dataloader)) is not None


class Places(Callback):
    def on_train_start(self, trainer, module):
        rows, read = trainer.train_dataloader.rows, trainer.train_dataloader.rows.__getitems__

        def watched(places):
            with open(f"{trainer.log_dir}/places-{trainer.global_rank}.txt", "a") as file:
                print(json.dumps([trainer.current_epoch, [p for p in places if p < len(rows)]]), file=file)
            return read(places)

        rows.__getitems__ = watched
