# What the compiled `sessions` is to know beyond its Python: types of C.
cimport cython


@cython.final
cdef class Session:
    cdef public long long touched_us
    cdef public double reach_us
    cdef public long long step_us
    cdef public double over_us
    cdef public long n_events
    cdef public long n_untimed
    cdef public bint is_spent
    cdef public str id
    cdef public long long latest_us
    cdef public long long event_time_us
    cdef public bytearray rows
    cdef public double trigger_n
    cdef public double trigger_us
    cdef public long long first_offset
    cdef public object opened_at_watermark_us
    cdef public object facts
    cdef public object yardstick
    cdef public object id_day
    cdef public object id_end_us
    cdef public double closes_us
    cdef public bint tells_time
    cdef public object event_ids
    cdef public int n_checkpoints_done
