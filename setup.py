"""Build: the modules of the hot path are compiled where a C compiler is there, and stay Python where none is.

They are plain Python; a ``.pxd`` beside each tells Cython the types of C. What they come to is the same bit for bit
(`tests/contract/test_compiled.py`). With ``STREAM_FP_PURE=1`` nothing is compiled, and the wheel fits every platform.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

#: In the order of imports.
COMPILED = ("stamps", "rounding", "sessions", "usual", "engine", "features", "prefix_model", "classifier", "forecast",
            "predictor")  # fmt: skip
#: Contracted to one step, a product and a sum would be rounded once instead of twice: other bits than Python's.
FLAGS = [] if sys.platform == "win32" else ["-O2", "-g0", "-ffp-contract=off"]


def extensions() -> list[Extension]:
    """Return what is to be compiled."""
    if os.environ.get("STREAM_FP_PURE") == "1":
        return []
    # Not needed, and perhaps not there, for a pure build.
    from Cython.Build import cythonize  # noqa: PLC0415
    from Cython.Compiler.Options import get_directive_defaults  # noqa: PLC0415

    modules = [Extension(f"stream_fp.{name}", [f"stream_fp/{name}.py"], extra_compile_args=FLAGS) for name in COMPILED]
    # Types come from the `.pxd` files alone; annotations are for readers and mypy. Indices are checked, as in Python.
    directives = {"language_level": 3, "annotation_typing": False}
    found: list[Extension] = []
    for module in modules:
        # Of classes alone, and not to be had from a `.pxd`: the collector would walk all open sessions, which are part
        # of no cycle.
        get_directive_defaults()["no_gc"] = module.name == "stream_fp.sessions"
        found += cythonize([module], build_dir="build/cython", compiler_directives=directives, quiet=True)
    for extension in found:
        extension.optional = True  # what cannot be compiled is a warning; `cythonize` would forget it
    return found


class AllOrNothing(build_ext):
    """Compiles all modules or none: they share types of C, and one without the others would not load."""

    def run(self) -> None:
        """Compile; where one has failed, delete the others."""
        super().run()
        compiled = [Path(self.get_ext_fullpath(extension.name)) for extension in self.extensions]
        if not all(path.exists() for path in compiled):
            for path in compiled:
                path.unlink(missing_ok=True)
            self.warn("no C compiler that works, or no Python.h: stream_fp stays Python, two to three times as slow")


setup(
    ext_modules=extensions(),
    cmdclass={"build_ext": AllOrNothing},
    options={"build_ext": {"parallel": os.cpu_count()}},
)
