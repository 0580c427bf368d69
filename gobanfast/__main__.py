"""Entry point of `python -m gobanfast`, the same as the `gobanfast` command."""

from __future__ import annotations

import sys

from gobanfast.cli import main

if __name__ == "__main__":
    sys.exit(main())
