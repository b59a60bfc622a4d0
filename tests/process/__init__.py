"""Real forks, real signals, real sockets: tests that run prefork as its users do."""
