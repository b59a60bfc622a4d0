"""State that all workers see, measured: `prefork.shared` beside its peers."""
