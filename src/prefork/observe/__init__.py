"""What prefork says of itself."""
