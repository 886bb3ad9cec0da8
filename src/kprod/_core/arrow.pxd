"""Columns from the Arrow C data interface."""
from libc.stdint cimport int64_t

from kprod._core.column cimport Column, Integers


cdef bint is_arrow(object source)
cdef Column column_of_arrow(str name, object source)
cdef Integers integers_of_arrow(str name, object source, int64_t length)
