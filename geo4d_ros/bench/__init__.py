"""What measures safety and lists the faults to inject."""
