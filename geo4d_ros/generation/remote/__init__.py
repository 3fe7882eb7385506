"""A generator on another machine: what goes over the wire, and the client that is a `VideoGenerator`."""
