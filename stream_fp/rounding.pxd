# What the compiled `rounding` is to know beyond its Python: types of C.
cimport libc.math as math


cpdef double rounded(double value, double fineness) except? -1.5
