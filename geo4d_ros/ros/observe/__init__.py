"""What comes in: cameras, joint states, transforms."""
