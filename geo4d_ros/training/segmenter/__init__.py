"""Trains the gripper segmenter."""
