"""The `geo4d` command line: one module per command, imported only when it is called."""
