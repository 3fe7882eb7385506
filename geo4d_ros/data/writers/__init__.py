"""Writers of other data sets."""
