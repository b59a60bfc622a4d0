"""A package, so that no `tests` of an installed distribution can come before it on the path."""
