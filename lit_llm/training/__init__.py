"""What acts around a run: optimizers and schedules, callbacks, the run folder."""
