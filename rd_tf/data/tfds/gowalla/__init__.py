"""Gowalla, check-ins of 2009 and 2010."""
