"""`geo4d data ...`"""
