"""Trackers of others, behind the protocol."""
