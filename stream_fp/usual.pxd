# What the compiled `usual` is to know beyond its Python: types of C.
cimport cython

from stream_fp.sessions cimport Session
from stream_fp.stamps cimport digits_us


@cython.final
cdef class Stretch:
    cdef public long long watermark_us
    cdef public double deadline_us
    cdef public long n_events
    cdef public long n_room
    cdef public long n_applied
    cdef public long n_late
    cdef public object error


cdef double _NAN, _MIN_PRICE, _MAX_PRICE, _MAX_INTENSITY


@cython.locals(
    watermark_us=cython.longlong, moved_us=cython.longlong, time_us=cython.longlong,
    deadline_us=cython.double, price_known=cython.double, intensity_known=cython.double,
    n_events=cython.long, n_room=cython.long, n_applied=cython.long, n_late=cython.long,
    index=Py_ssize_t, n_records=Py_ssize_t, n_bytes=Py_ssize_t, code=cython.longlong, crossed=cython.bint, session=Session,
)
cpdef Py_ssize_t take_usual(
    object records, Py_ssize_t first, dict sessions, Stretch stretch, Py_ssize_t max_bytes, Py_ssize_t max_events
) except? -1000000000
