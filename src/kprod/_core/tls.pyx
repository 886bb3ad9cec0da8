"""TLS without the GIL: takes an established connection over from Python's ssl module.

Python's ``ssl`` does the handshake: it has the contexts, the checks and the errors. Then the network loop encrypts and
decrypts with the same OpenSSL that ``_ssl`` is linked to, on the connection's own SSL object; csrc/kp_tls.h has the
rest. Where that cannot be done, :exc:`NotPossible` says why, and kprod.engine.tls_pump is there.
"""
import sys
import weakref

cimport cython

from cpython.object cimport PyObject
from libc.stdint cimport intptr_t
from libc.string cimport memset, strcmp

cdef extern from *:
    """
    /* How PySSLSocket of Modules/_ssl.c begins, in CPython 3.10 to 3.15. What follows has changed over time. */
    typedef struct {
        PyObject_HEAD
        PyObject *Socket;      /* a weak reference to the ssl.SSLSocket */
        void *ssl;
    } kp_py_ssl_socket;
    static const char *kp_tls_version_of(const kp_tls *t) { return t->api->SSL_get_version(t->ssl); }
    static int kp_tls_fd_of(void *ssl) { return kp_tls_the_api.SSL_get_fd(ssl); }
    """
    ctypedef struct kp_py_ssl_socket:
        PyObject* Socket
        void* ssl
    const char* kp_tls_version_of(const kp_tls* t) nogil
    int kp_tls_fd_of(void* connection) nogil


class NotPossible(Exception):
    """The connection cannot be taken over from Python's ssl module; the text says why."""


_reason = None                  # why no connection can be taken over; "": they can; None: not looked at yet


def why_not():
    """Why this Python's TLS connections cannot be taken over; '' if they can."""
    global _reason
    if _reason is None:
        _reason = _look()
    return _reason


def _look():
    import ssl

    import _ssl
    if sys.implementation.name != "cpython" or not (3, 10) <= sys.version_info[:2] <= (3, 15):
        return f"the ssl module of {sys.implementation.name} {sys.version_info[0]}.{sys.version_info[1]} is not known"
    # A module that is part of the interpreter has no file of its own, and an OpenSSL that is inside of it.
    path = getattr(_ssl, "__file__", None)
    if path is None:
        return "the ssl module is part of the interpreter, with an OpenSSL that others cannot call"
    encoded = path.encode(sys.getfilesystemencoding(), "surrogateescape")
    version = ssl.OPENSSL_VERSION.encode()
    if not kp_tls_find(encoded, version):
        return f"the OpenSSL of {path} cannot be called from outside ({ssl.OPENSSL_VERSION})"
    return ""


@cython.final
cdef class TlsStream:
    """An established TLS connection, taken over from Python.

    Args:
        connection: an ``ssl.SSLSocket`` whose handshake is done. From here on only the network loop may use it.

    Raises:
        NotPossible: it cannot be taken over, and is as it was.
    """

    def __cinit__(self, connection):
        cdef kp_py_ssl_socket* inner
        cdef intptr_t fd = connection.fileno()
        memset(&self.tls, 0, sizeof(kp_tls))
        if why_not():
            raise NotPossible(why_not())
        context = connection.context
        if context.keylog_filename is not None or context._msg_callback is not None:
            raise NotPossible("the ssl_context has a key log file or a message callback, which need the GIL")
        import _ssl  # here, as in _look(): who connects without TLS does not wait for OpenSSL to be loaded

        owner = connection._sslobj
        if type(owner) is not _ssl._SSLSocket or type(owner).__basicsize__ < <Py_ssize_t>sizeof(kp_py_ssl_socket):
            raise NotPossible(f"{type(owner).__name__} is not the known kind of connection")
        inner = <kp_py_ssl_socket*><PyObject*>owner
        # If the first field is what it should be, so is the second: only then it is followed.
        reference = weakref.ref(connection)
        if inner.Socket != <PyObject*>reference or inner.ssl == NULL:
            raise NotPossible("the ssl module's connections do not look as they are known to")
        if kp_tls_fd_of(inner.ssl) != fd:
            raise NotPossible("OpenSSL names another socket than Python does")
        if not kp_tls_init(&self.tls, inner.ssl, fd):
            kp_tls_free(&self.tls)
            raise MemoryError
        self.connection = owner
        if strcmp(kp_tls_version_of(&self.tls), owner.version().encode()) != 0:
            raise RuntimeError("OpenSSL names another TLS version than Python does")

    def __dealloc__(self):
        kp_tls_free(&self.tls)
