from setuptools import setup
from Cython.Build import cythonize
from setuptools import Extension
import os
names = os.environ.get("MODS","stamps sessions usual engine").split()
setup(packages=[], ext_modules=cythonize([Extension(f"stream_fp.{n}",[f"stream_fp/{n}.py"],extra_compile_args=["-O2","-ffp-contract=off"]) for n in names], language_level=3, build_dir="build/cython", annotate=True, compiler_directives={"annotation_typing": False}))
