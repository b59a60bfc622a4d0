"""`python -m prefork` is the command `prefork`."""

from __future__ import annotations

from prefork.cli.serve import main

if __name__ == "__main__":
    main()
