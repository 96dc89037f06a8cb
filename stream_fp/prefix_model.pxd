# What the compiled `prefix_model` is to know beyond its Python: types of C.
cimport cython


@cython.locals(column=Py_ssize_t, at=Py_ssize_t, total=cython.double, weight=cython.double, coefficient=cython.double, sums=list)
cdef list _weighted(list weights, list table, Py_ssize_t width)


cdef double _clipped(double value, double bound) except? -1.5


cdef double _MAX_LOG
