"""`geo4d evaluate ...`"""
