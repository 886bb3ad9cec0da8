# Reading ahead. With thousands of partitions the fields of the next one are in no cache any more, and waiting for them,
# one after the other, is most of what a batch of few records costs.

cdef enum:
    AHEAD = 8                  # places between what is worked on and what is asked for
    SOON = 4                   # between that and what has been asked for, so that its pointers can be followed
    PARTITION_USED = 192       # bytes of a partition that every batch needs
    HEAD_USED = 192            # bytes of a batch that evaluate() looks at
    RECORD_BYTES = 192         # bytes of a batch's records


cdef inline void prefetch_partitions(kp_partition** list, int32_t place, int32_t end) noexcept nogil:
    """Going through a list of partitions (NULL: none): those that come next, and their first batches."""
    cdef kp_partition* p
    if place + AHEAD < end:
        p = list[place + AHEAD]
        if p != NULL:
            kp_prefetch(p, PARTITION_USED)
    if place + SOON < end:
        p = list[place + SOON]
        if p != NULL:
            kp_prefetch(kp_load_ptr(<void**>&p.head), HEAD_USED)


cdef inline void prefetch_batches(kp_batch** list, int32_t place, int32_t end) noexcept nogil:
    """Going through a list of batches: those that come next, and their partitions."""
    if place + AHEAD < end:
        kp_prefetch(list[place + AHEAD], sizeof(kp_batch))
    if place + SOON < end:
        kp_prefetch(list[place + SOON].partition, PARTITION_USED)


cdef inline void prefetch_records(kp_partition* p) noexcept nogil:
    """The first bytes of the first batch of a partition in a ready list: their checksum is about to be taken."""
    cdef kp_batch* b
    # What evaluate() has not looked at under the partition's lock may be too new to be read.
    if p != NULL and p.retry_head == NULL:
        b = <kp_batch*>kp_load_ptr(<void**>&p.head)
        if b != NULL:
            # Another thread may be about to move them: then it is for nothing.
            kp_prefetch(kp_load_ptr(<void**>&b.data), RECORD_BYTES)
