"""Ranking losses, distillation losses and the weights of a teacher's list."""
