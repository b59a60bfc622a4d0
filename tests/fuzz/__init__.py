"""Bytes that nobody has thought of: a coverage-guided fuzzer over one connection, and what must hold whatever comes."""
