# The largest value of the last windows (metrics.num.samples times metrics.sample.window.ms).

cdef inline void note_peak(kp_loop* loop, kp_peak* peak, int64_t value, int64_t now_us) noexcept nogil:
    cdef int64_t slot = now_us // loop.peak_slot_us
    cdef int i
    if slot != peak.slot:
        forget_peaks(peak, slot)
    i = <int>(slot % PEAK_SLOTS)
    if value > peak.largest[i]:
        peak.largest[i] = value


cdef void forget_peaks(kp_peak* peak, int64_t slot) noexcept nogil:
    """Begin a new slot: what is older than all slots together is forgotten."""
    cdef int64_t passed = slot - peak.slot
    cdef int64_t i
    if passed < 0 or passed > PEAK_SLOTS:
        passed = PEAK_SLOTS
    for i in range(passed):
        peak.largest[(slot - i) % PEAK_SLOTS] = 0
    peak.slot = slot


cdef int64_t peak_of(kp_loop* loop, kp_peak* peak, int64_t now_us) noexcept nogil:
    """The largest value noted of late, 0: none was."""
    cdef int64_t oldest = now_us // loop.peak_slot_us - PEAK_SLOTS + 1
    cdef int64_t largest = 0
    cdef int64_t slot
    cdef int i
    for i in range(PEAK_SLOTS):
        slot = peak.slot - i
        if slot >= oldest and slot >= 0 and peak.largest[slot % PEAK_SLOTS] > largest:
            largest = peak.largest[slot % PEAK_SLOTS]
    return largest
