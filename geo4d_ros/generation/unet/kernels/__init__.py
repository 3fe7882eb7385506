"""The same mathematics in forms that run faster."""
