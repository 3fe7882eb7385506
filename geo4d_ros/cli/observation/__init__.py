"""`geo4d observation ...`: observations as files, and where commands take them from."""
