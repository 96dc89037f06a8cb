# What the compiled `stamps` is to know beyond its Python: types of C.
cimport cython


@cython.locals(
    n=Py_ssize_t, i=Py_ssize_t, at=Py_ssize_t, century=cython.long, year=cython.long, month=cython.long,
    day=cython.long, hour=cython.long, minute=cython.long, second=cython.long, last_day=cython.long,
    fraction_us=cython.longlong, digit=cython.long, offset_min=cython.long, ahead=cython.long, beside=cython.long,
    shifted=cython.long, days=cython.longlong, minutes=cython.longlong,
)
cpdef long long digits_us(str text) except? -2


@cython.locals(tens=cython.long, ones=cython.long)
cdef long _two(str text, Py_ssize_t at) except? -2
