"""Independent jobs over worker processes of this machine or of a cluster."""
