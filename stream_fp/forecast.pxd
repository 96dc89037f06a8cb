# What the compiled `forecast` is to know beyond its Python: types of C.
from stream_fp.rounding cimport rounded

cdef double _FINENESS
