"""python -m pipelines.paper: the paper's tables and plots, from training to the pages that show them."""
