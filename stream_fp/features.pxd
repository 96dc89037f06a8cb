# What the compiled `features` is to know beyond its Python: types of C.
cimport cython
cimport libc.math as math

cdef double _MINUTE_US, _BP_PER_PCT, _MAX_ENTROPY, _NO_SPREAD
cdef Py_ssize_t _REGIMES, _RANGE_TEMPO, _TIMING, _DISTRIBUTION, _N_KINDS, _N_PHASES, _N_REGIMES
cdef long long _CODE_BITS, _CODE_MASK


cpdef list fingerprint(object rows, long long start_us)


@cython.locals(i=Py_ssize_t, before=cython.longlong, time_us=cython.longlong)
cdef bint _is_in_order(const long long[::1] words) except? True


@cython.locals(elapsed=cython.double)
cdef void _fill(double[::1] vector, const long long[::1] words, const double[::1] numbers, long long start_us) except *


@cython.locals(since_us=cython.longlong)
cdef double _minute(const long long[::1] words, Py_ssize_t i, long long start_us) except? -1


@cython.locals(
    n=Py_ssize_t, i=Py_ssize_t, code=cython.longlong, phase=Py_ssize_t, regime=Py_ssize_t, before=Py_ssize_t,
    n_unknown=cython.long, n_named=cython.long, n_switches=cython.long, run=cython.long, longest_run=cython.long,
    entropy=cython.double, share=cython.double,
)
cdef void _composition(double[::1] vector, const long long[::1] words) except *


@cython.locals(
    i=Py_ssize_t, n_prices=Py_ssize_t, at_high=Py_ssize_t, at_low=Py_ssize_t, n_early=Py_ssize_t, is_timed=cython.bint,
    price=cython.double, before=cython.double, logarithm=cython.double, first=cython.double, last=cython.double,
    high=cython.double, low=cython.double, early_high=cython.double, early_low=cython.double, path=cython.double,
    first_logarithm=cython.double, half=cython.double, hours=cython.double, span=cython.double,
    span_of_first=cython.double, net=cython.double, efficiency=cython.double, path_per_hour=cython.double,
    late_share=cython.double, close_position=cython.double,
)
cdef void _moves(
    double[::1] vector, const long long[::1] words, const double[::1] numbers, long long start_us, double elapsed
) except *


@cython.locals(
    n=Py_ssize_t, i=Py_ssize_t, n_recent=Py_ssize_t, n_gaps=Py_ssize_t, middle=Py_ssize_t, gaps=list,
    median_gap=cython.double, gap_cv=cython.double, longest_share=cython.double, recent=cython.double,
    centroid=cython.double, total=cython.double, threshold=cython.double, minute=cython.double, before=cython.double,
    first=cython.double, active=cython.double, mean_gap=cython.double, squares=cython.double, gap=cython.double,
    variance=cython.double,
)
cdef void _timing(double[::1] vector, const long long[::1] words, long long start_us, double elapsed) except *


@cython.locals(
    i=Py_ssize_t, m=Py_ssize_t, total=cython.double, size=cython.double, value=cython.double, mean=cython.double,
    squares=cython.double, products=cython.double, order=cython.double, variance=cython.double,
    order_variance=cython.double, trend=cython.double,
)
cdef void _intensity_shape(double[::1] vector, const double[::1] numbers) except *
