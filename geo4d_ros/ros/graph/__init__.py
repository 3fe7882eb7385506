"""Starts the nodes as processes and watches their graph from outside."""
