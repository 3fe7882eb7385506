"""What every node has: parameters, services, diagnostics, quality of service, a clean end."""
