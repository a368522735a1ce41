"""Rankers that encode a query and multiply it with an item table."""
