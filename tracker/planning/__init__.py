"""Which checkpoints, in which order, at what cost."""
