/* Non-blocking socket calls for the network loop, without the GIL, on POSIX and Windows.
 *
 * Every function returns a byte count >= 0, KP_SOCK_AGAIN, or -(error number) < KP_SOCK_AGAIN; EINTR is retried. */
#ifndef KP_SOCK_H
#define KP_SOCK_H

#include <stddef.h>
#include <stdint.h>

#define KP_SOCK_AGAIN (-1000000)
#define KP_IOV_MAX 256

#ifdef _WIN32
#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#endif
#include <winsock2.h>
#include <ws2tcpip.h>
typedef WSAPOLLFD kp_pollfd;
typedef struct { ULONG len; CHAR *base; } kp_iov; /* the layout of WSABUF */
static inline void kp_iov_set(kp_iov *v, const void *p, size_t n) { v->base = (CHAR *)p; v->len = (ULONG)n; }
static inline size_t kp_iov_len(const kp_iov *v) { return v->len; }
static inline void kp_iov_advance(kp_iov *v, size_t n) { v->base += n; v->len -= (ULONG)n; }
static inline int kp_sock_error(void) {
    int e = WSAGetLastError();
    return e == WSAEWOULDBLOCK ? KP_SOCK_AGAIN : -e;
}
static inline int64_t kp_sock_send(intptr_t fd, kp_iov *iov, int n) {
    DWORD sent = 0;
    if (WSASend((SOCKET)fd, (WSABUF *)iov, (DWORD)n, &sent, 0, NULL, NULL) == 0) return (int64_t)sent;
    return kp_sock_error();
}
static inline int64_t kp_sock_recv(intptr_t fd, void *buf, size_t n) {
    int r = recv((SOCKET)fd, (char *)buf, n > 0x40000000 ? 0x40000000 : (int)n, 0);
    return r >= 0 ? r : kp_sock_error();
}
static inline int kp_poll(kp_pollfd *fds, unsigned n, int timeout_ms) {
    int r = WSAPoll(fds, n, timeout_ms);
    return r >= 0 ? r : kp_sock_error();
}
static inline void kp_sock_close(intptr_t fd) { closesocket((SOCKET)fd); }
static inline int kp_sock_connect_error(intptr_t fd) {
    int e = 0, n = sizeof e;
    if (getsockopt((SOCKET)fd, SOL_SOCKET, SO_ERROR, (char *)&e, &n) != 0) return WSAGetLastError();
    return e;
}
#else
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>
typedef struct pollfd kp_pollfd;
typedef struct iovec kp_iov;
static inline void kp_iov_set(kp_iov *v, const void *p, size_t n) { v->iov_base = (void *)p; v->iov_len = n; }
static inline size_t kp_iov_len(const kp_iov *v) { return v->iov_len; }
static inline void kp_iov_advance(kp_iov *v, size_t n) { v->iov_base = (char *)v->iov_base + n; v->iov_len -= n; }
#ifdef MSG_NOSIGNAL
#define KP_SEND_FLAGS MSG_NOSIGNAL
#else
#define KP_SEND_FLAGS 0 /* macOS: the control thread sets SO_NOSIGPIPE */
#endif
static inline int kp_sock_error(void) {
    int e = errno;
    return (e == EAGAIN || e == EWOULDBLOCK) ? KP_SOCK_AGAIN : -e;
}
static inline int64_t kp_sock_send(intptr_t fd, kp_iov *iov, int n) {
    struct msghdr msg = {0};
    ssize_t r;
    msg.msg_iov = iov;
    msg.msg_iovlen = n;
    do r = sendmsg((int)fd, &msg, KP_SEND_FLAGS); while (r < 0 && errno == EINTR);
    return r >= 0 ? (int64_t)r : kp_sock_error();
}
static inline int64_t kp_sock_recv(intptr_t fd, void *buf, size_t n) {
    ssize_t r;
    do r = recv((int)fd, buf, n, 0); while (r < 0 && errno == EINTR);
    return r >= 0 ? (int64_t)r : kp_sock_error();
}
/* EINTR counts as "nothing ready": the loop comes back by itself. */
static inline int kp_poll(kp_pollfd *fds, unsigned n, int timeout_ms) {
    int r = poll(fds, (nfds_t)n, timeout_ms);
    if (r < 0) return errno == EINTR ? 0 : kp_sock_error();
    return r;
}
static inline void kp_sock_close(intptr_t fd) { close((int)fd); }
static inline int kp_sock_connect_error(intptr_t fd) {
    int e = 0;
    socklen_t n = sizeof e;
    if (getsockopt((int)fd, SOL_SOCKET, SO_ERROR, &e, &n) != 0) return errno;
    return e;
}
#endif

/* Wake-up channel of the loop: an eventfd or a socket pair, made by the engine. */
static inline void kp_wake_write(intptr_t fd) {
    static const uint64_t one = 1;
#ifdef _WIN32
    (void)send((SOCKET)fd, (const char *)&one, 8, 0);
#else
    ssize_t r;
    do r = write((int)fd, &one, 8); while (r < 0 && errno == EINTR);
#endif
}
static inline void kp_wake_drain(intptr_t fd) {
    char sink[256];
#ifdef _WIN32
    while (recv((SOCKET)fd, sink, sizeof sink, 0) == (int)sizeof sink) { }
#else
    ssize_t r;
    do r = read((int)fd, sink, sizeof sink); while (r == (ssize_t)sizeof sink || (r < 0 && errno == EINTR));
#endif
}

static inline void kp_pollfd_set(kp_pollfd *p, intptr_t fd, int want_write) {
#ifdef _WIN32
    p->fd = (SOCKET)fd;
    p->events = (SHORT)(POLLRDNORM | (want_write ? POLLWRNORM : 0));
#else
    p->fd = (int)fd;
    p->events = (short)(POLLIN | (want_write ? POLLOUT : 0));
#endif
    p->revents = 0;
}
/* Errors and the end of the connection are still told. */
static inline void kp_pollfd_ignore_input(kp_pollfd *p) {
#ifdef _WIN32
    p->events &= (short)~POLLRDNORM;
#else
    p->events &= (short)~POLLIN;
#endif
}
static inline int kp_pollfd_readable(const kp_pollfd *p) {
#ifdef _WIN32
    return (p->revents & (POLLRDNORM | POLLHUP | POLLERR)) != 0;
#else
    return (p->revents & (POLLIN | POLLHUP | POLLERR)) != 0;
#endif
}
static inline int kp_pollfd_writable(const kp_pollfd *p) {
#ifdef _WIN32
    return (p->revents & (POLLWRNORM | POLLHUP | POLLERR)) != 0;
#else
    return (p->revents & (POLLOUT | POLLHUP | POLLERR)) != 0;
#endif
}
static inline int kp_pollfd_invalid(const kp_pollfd *p) { return (p->revents & POLLNVAL) != 0; }

#endif
