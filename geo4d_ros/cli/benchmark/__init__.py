"""`geo4d benchmark ...`"""
