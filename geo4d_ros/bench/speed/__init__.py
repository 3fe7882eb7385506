"""How fast the parts are, and against what."""
