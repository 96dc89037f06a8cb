# What the compiled `classifier` is to know beyond its Python: types of C.
cimport cython
cimport libc.math as math


@cython.locals(
    i=Py_ssize_t, total=cython.double, value=cython.double, middle=cython.double, unit=cython.double,
    away=cython.double,
)
cdef double _euclidean(list values, list center, list scale) except? -1
