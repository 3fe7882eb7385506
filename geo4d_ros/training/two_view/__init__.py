"""Trains the two-view network: batches, losses and a time-budgeted, resumable loop."""

from geo4d_ros.training.two_view.train import train

__all__ = ['train']
