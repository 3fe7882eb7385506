"""`geo4d train ...`"""
