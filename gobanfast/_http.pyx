"""What every HTTP request pays for: its id, the wrapper that puts it on the response, and a look for some headers."""

cimport cython
from cpython.dict cimport PyDict_GetItemWithError
from cpython.ref cimport PyObject
from cpython.unicode cimport PyUnicode_1BYTE_DATA, PyUnicode_New
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

cdef enum:
    PREFIX = 12
    ID = PREFIX + 1 + 16  # characters of an id

cdef const char *HEX = "0123456789abcdef"
cdef uint64_t STEP = 0x9E3779B97F4A7C15  # odd, so that all 2^64 numbers come before one comes again


@cython.final
cdef class RequestIds:
    """Request ids of one process: `seed` (14 bytes) makes them differ from those of others."""

    def __init__(self, bytes seed not None):
        self.renew(seed)

    def renew(self, bytes seed not None, /):
        """Starts anew, in a child of fork."""
        if len(seed) != 14:
            raise ValueError(f"a seed has 14 bytes, not {len(seed)}")
        text = seed[:6].hex().encode()
        memcpy(self._prefix, <const char *>text, PREFIX)
        memcpy(&self._next, <const char *>seed + 6, 8)

    def mint(self):
        """An id that no other request has."""
        cdef uint64_t number = self._next
        cdef str made = PyUnicode_New(ID, 127)
        cdef uint8_t *out = <uint8_t *>PyUnicode_1BYTE_DATA(made)
        cdef int i
        self._next = number + STEP
        memcpy(out, self._prefix, PREFIX)
        out[PREFIX] = c"-"
        for i in range(ID - 1, PREFIX, -1):
            out[i] = HEX[number & 15]
            number >>= 4
        return made


@cython.final
@cython.freelist(64)
cdef class MarkedSend:
    """An ASGI `send` that puts `x-request-id`, and the pairs of `extra`, on the response of the application."""

    def __init__(self, send, str request_id not None, list extra=None):
        self._send, self._request_id, self._extra = send, request_id, extra

    def __call__(self, message, /):
        kind = message["type"]
        if kind == "http.response.start" or kind == "websocket.accept" or kind == "websocket.http.response.start":
            headers = list(message.get("headers", ()))
            for name, _ in headers:
                if name == b"x-request-id":  # the application has said one
                    break
            else:
                headers.append((b"x-request-id", self._request_id.encode()))
            if self._extra is not None:
                headers += self._extra
            message = dict(message)  # it is the application's, who may send it again
            message["headers"] = headers
        return self._send(message)


def pick(headers, dict names not None, /):
    """name -> text of those headers that `names` (bytes -> name) lists; repeated ones joined by commas, in order."""
    cdef dict found = {}
    cdef dict repeated = None
    cdef PyObject *name
    for raw, value in headers:
        name = PyDict_GetItemWithError(names, raw)
        if name == NULL:
            continue
        text = (<bytes?>value).decode("latin-1")
        if <object>name not in found:
            found[<object>name] = text
            continue
        if repeated is None:
            repeated = {}
        repeated.setdefault(<object>name, [found[<object>name]]).append(text)
    if repeated is not None:
        for key, values in repeated.items():
            found[key] = ",".join(values)
    return found
