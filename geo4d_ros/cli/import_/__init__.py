"""`geo4d import ...`"""
