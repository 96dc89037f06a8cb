"""Build: the modules of the hot path are compiled where a C compiler is there, and stay Python where none is.

They are plain Python; a ``.pxd`` beside each tells Cython the types of C. What they come to is the same bit for bit
(`tests/contract/test_compiled.py`). With ``STREAM_FP_PURE=1`` nothing is compiled, and the wheel fits every platform.
"""

from __future__ import annotations

import os
import sys

from setuptools import Extension, setup

#: In the order of imports.
COMPILED = ("stamps", "rounding", "sessions", "usual", "engine", "features", "prefix_model", "classifier", "forecast",
            "predictor")  # fmt: skip
#: Contracted to one step, a product and a sum would be rounded once instead of twice: other bits than Python's.
FLAGS = [] if sys.platform == "win32" else ["-O2", "-g0", "-ffp-contract=off"]


def extensions() -> list[Extension]:
    """Return what is to be compiled."""
    if os.environ.get("STREAM_FP_PURE") == "1":
        return []
    from Cython.Build import cythonize  # noqa: PLC0415 - not needed, and perhaps not there, for a pure build

    modules = [
        Extension(f"stream_fp.{name}", [f"stream_fp/{name}.py"], extra_compile_args=FLAGS, optional=True)
        for name in COMPILED
    ]
    # Types come from the `.pxd` files alone; annotations are for readers and mypy. Indices are checked, as in Python.
    directives = {"language_level": 3, "annotation_typing": False}
    found: list[Extension] = cythonize(modules, build_dir="build/cython", compiler_directives=directives, quiet=True)
    return found


setup(ext_modules=extensions(), options={"build_ext": {"parallel": os.cpu_count()}})
