"""What puts our server in the place of a stranger's, in the stranger's own suite: one module a suite.

Each is a plugin of pytest, or a program, and runs in the environment of strangers' suites beside the suite itself. None
changes a test: only what a test takes for its server.
"""
