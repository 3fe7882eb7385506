"""Messages to and from the package's types."""
