"""HTML pages, tables, curves and films of results."""
