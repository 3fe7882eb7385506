"""Image, depth, consistency, pose and tracker metrics."""
