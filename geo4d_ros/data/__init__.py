"""Demonstration episodes: format, collection, windows, readers and writers."""
