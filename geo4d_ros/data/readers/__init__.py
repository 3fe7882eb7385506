"""Readers of other data sets."""
