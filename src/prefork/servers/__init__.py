"""Servers of other projects under prefork, each a small file; importing this room imports none of them."""
