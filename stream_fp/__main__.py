"""``python -m stream_fp`` is ``stream-fp``."""

from stream_fp.cli import main

main()
