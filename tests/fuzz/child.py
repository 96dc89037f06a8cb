"""One fuzzer: guided by what its inputs reach in the interpreted sources, which its parent puts first on the path.

Called as ``python -m tests.fuzz.child TARGET FOLDER [flags of libFuzzer] [folders of inputs]``.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path


def main() -> None:
    """Fuzz until a finding, or for as many executions as the flags say."""
    import atheris  # noqa: PLC0415 - an extra

    _, name, folder, *rest = sys.argv
    with atheris.instrument_imports(include=["stream_fp", "offline"]):
        targets = importlib.import_module("tests.fuzz.targets")
    assert not targets.IS_COMPILED, "compiled code tells the fuzzer nothing"
    atheris.Setup([sys.argv[0], *rest], targets.TARGETS[name](Path(folder)))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
