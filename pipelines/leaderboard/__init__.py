"""python -m pipelines.leaderboard: every teacher, loss and student of a table of rows, under one protocol."""
