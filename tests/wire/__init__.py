"""Raw bytes to our own HTTP server, and its raw answers."""
