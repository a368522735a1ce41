"""Foursquare check-ins from a file of one's own."""
