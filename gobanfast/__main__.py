"""`python -m gobanfast` is the `gobanfast` command."""

from __future__ import annotations

import sys

from gobanfast.cli import main

if __name__ == "__main__":
    sys.exit(main())
