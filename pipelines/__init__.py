"""Commands that join others: a whole distillation, the paper's tables, Apache Beam."""
