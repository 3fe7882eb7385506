"""Random and adversarial plans against the gates, judged by independent checks."""
