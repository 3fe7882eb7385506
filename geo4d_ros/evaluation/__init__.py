"""Metrics, baselines, closed-loop harness and reports."""
