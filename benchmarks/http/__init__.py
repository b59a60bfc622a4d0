"""What the HTTP server costs, beside its peers."""
