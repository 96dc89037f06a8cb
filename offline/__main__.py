"""``python -m offline`` and ``stream-fp-offline``: the command line, or one line that says what it needs."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; the entry point."""
    try:
        from offline.cli import main as run  # noqa: PLC0415 - it needs what only the extra brings
    except ModuleNotFoundError as error:
        sys.stderr.write(
            f"stream-fp-offline: needs `{error.name}`, which is not installed: pip install 'stream-fp[offline]'\n"
        )
        sys.exit(2)
    run()


if __name__ == "__main__":
    main()
