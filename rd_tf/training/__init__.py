"""Training: the step, the optimizer, the loop and what it reports."""
