"""`python -m matryo`."""

from __future__ import annotations

from matryo.cli.app import main

if __name__ == "__main__":
    main()
