"""What a run is worth: baselines, runs side by side, sweeps."""
