"""`geo4d export ...`"""
