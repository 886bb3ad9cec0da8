"""Produce requests and responses (API key 0, versions 3 to 13), without the GIL."""
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t

from kprod._core.cursor cimport kp_cursor
from kprod._core.structs cimport kp_batch, kp_request

cdef struct kp_produce_settings:
    const char* client_id      # borrowed
    int32_t client_id_length   # -1: null
    const char* transactional_id
    int32_t transactional_id_length  # -1: null
    int32_t timeout_ms         # how long the broker may wait for replicas

cdef struct kp_partition_response:
    # What a response says of one partition; pointers lead into the frame.
    const uint8_t* topic_name  # NULL in version 13
    int32_t topic_name_length
    const uint8_t* topic_id    # 16 bytes, NULL before version 13
    int32_t index
    int16_t error
    int64_t base_offset
    int64_t log_append_time
    const uint8_t* record_errors      # start of the array's elements
    int32_t n_record_errors
    const uint8_t* error_message
    int32_t error_message_length      # -1: null
    int32_t leader_id          # KIP-951, -1: not given
    int32_t leader_epoch

cdef kp_request* build_produce_request(const kp_produce_settings* settings, int16_t version, int16_t acks,
                                       kp_batch** batches, int32_t n) noexcept nogil
cdef void free_request(kp_request* request) noexcept nogil
cdef int open_produce_response(kp_cursor* c, int16_t version, int32_t* n_topics) noexcept nogil
cdef int next_topic(kp_cursor* c, int16_t version, kp_partition_response* out, int32_t* n_partitions) noexcept nogil
cdef int next_partition(kp_cursor* c, int16_t version, kp_partition_response* out) noexcept nogil
cdef int close_topic(kp_cursor* c, int16_t version) noexcept nogil
cdef int close_produce_response(kp_cursor* c, int16_t version, int32_t* throttle_ms, const uint8_t** endpoints,
                                int64_t* endpoints_length) noexcept nogil
cdef int next_record_error(kp_cursor* c, int16_t version, int32_t* index, const uint8_t** message,
                           int32_t* length) noexcept nogil
