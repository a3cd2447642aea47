"""`python -m satchel` is the command `satchel`."""

from __future__ import annotations

from satchel.cli import main

if __name__ == "__main__":
    main()
