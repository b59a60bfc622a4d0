"""What the documents say is true: their snippets compile, run, and name options that exist."""
