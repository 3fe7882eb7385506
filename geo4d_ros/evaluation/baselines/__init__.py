"""What the generator and the tracker are compared with."""
