"""Readers of check-in files; `check_ins.read_check_ins` is the door."""
