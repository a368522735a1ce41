"""Full ranking of held-out items and the metrics over their ranks."""
