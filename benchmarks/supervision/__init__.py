"""What the supervisor promises of its processes, measured, with its peers beside it."""
