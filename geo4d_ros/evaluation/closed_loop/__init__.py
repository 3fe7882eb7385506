"""Episodes of the closed loop in the simulated cell and why they fail."""
