"""Encoder of event streams: one event's fields to the bytes of its block."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint64_t

from gobanfast._core.native.http cimport gbf_sse_field, gbf_sse_one_line


cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *nbytes) except NULL
    long long PyLong_AsLongLongAndOverflow(object number, int *overflow) except? -1

cdef enum:
    DIGITS = 19  # of 2**63 - 1

# A field on its way out. `at` borrows the object that the caller holds.
cdef struct Field:
    const char *name
    uint64_t name_nbytes
    const uint8_t *at
    uint64_t nbytes


cdef inline int text_of(object text, Field *field) except -1:
    cdef Py_ssize_t nbytes
    field.at = <const uint8_t *>PyUnicode_AsUTF8AndSize(text, &nbytes)  # lone surrogates raise: a ValueError, too
    field.nbytes = <uint64_t>nbytes
    return 0


cdef int bytes_of(bytes data, Field *field) except -1:
    """A client reads UTF-8 and would put U+FFFD in the place of anything else."""
    if not data.isascii():
        data.decode("utf-8")
    field.at = <const uint8_t *>PyBytes_AS_STRING(data)
    field.nbytes = <uint64_t>PyBytes_GET_SIZE(data)
    return 0


cdef inline bint digits_of(object number, uint8_t *room, Field *field) except -1:
    """Puts the digits of an int into `room`; False: it is negative, or has more than 63 bits."""
    cdef int overflow = 0, i = DIGITS
    cdef long long value = PyLong_AsLongLongAndOverflow(number, &overflow)
    cdef uint64_t rest = <uint64_t>value
    if overflow != 0 or value < 0:
        return False
    while True:
        i -= 1
        room[i] = <uint8_t>(c"0" + rest % 10)
        rest //= 10
        if rest == 0:
            break
    field.at = room + i
    field.nbytes = <uint64_t>(DIGITS - i)
    return True


cdef inline void name_it(Field *field, const char *name, uint64_t nbytes) noexcept:
    field.name = name
    field.name_nbytes = nbytes


def encode(data=None, *, event=None, id=None, retry=None, comment=None):
    """The bytes of one event, with the empty line that ends it.

    Args:
        data: text, or bytes that are UTF-8. Lines end at CR, LF or CRLF alone, as in a client's parser, which joins
            them with LF. None: no data; such a block sets `id` and `retry`, and a client dispatches no event.
        event: name of the event; None: "message".
        id: what a client sends as Last-Event-ID when it comes back; "" takes it back. A number is as its digits.
        retry: milliseconds that a client waits before it comes back.
        comment: text that clients pass over.
    Raises:
        ValueError: a line end in `event`; a line end or NUL in `id` (a client ignores such an id, and resumes where it
            should not); `retry` that is not a whole number from 0 to 2**63 - 1; text that cannot be UTF-8.
        TypeError: an argument of another type.
    Cost: two passes over the text; one allocation, that of the result.
    Source: HTML, "Server-sent events".
    """
    cdef Field fields[5]
    cdef uint8_t id_digits[DIGITS]
    cdef uint8_t retry_digits[DIGITS]
    cdef int count = 0, i
    cdef uint64_t total = 1
    cdef uint8_t *out
    cdef bytes made
    if comment is not None:
        if not isinstance(comment, str):
            raise TypeError(f"comment is of type {type(comment).__name__}; give a str")
        text_of(comment, &fields[count])
        name_it(&fields[count], ": ", 2)
        count += 1
    if event is not None:
        if not isinstance(event, str):
            raise TypeError(f"event is of type {type(event).__name__}; give a str")
        text_of(event, &fields[count])
        if not gbf_sse_one_line(fields[count].at, fields[count].nbytes, False):
            raise ValueError(f"event {event!r:.80} has a line end; a name is one line")
        name_it(&fields[count], "event: ", 7)
        count += 1
    if id is not None:
        if type(id) is int:
            if not digits_of(id, id_digits, &fields[count]):
                id = str(id)
                text_of(id, &fields[count])
        elif not isinstance(id, str):
            raise TypeError(f"id is of type {type(id).__name__}; give a str or an int")
        else:
            text_of(id, &fields[count])
        if not gbf_sse_one_line(fields[count].at, fields[count].nbytes, True):
            raise ValueError(f"id {id!r:.80} has a line end or NUL; an id is one line without NUL")
        name_it(&fields[count], "id: ", 4)
        count += 1
    if retry is not None:
        if type(retry) is not int or not digits_of(retry, retry_digits, &fields[count]):
            raise ValueError(f"retry {retry!r:.80} is not a whole number of milliseconds, an int from 0 to 2**63 - 1")
        name_it(&fields[count], "retry: ", 7)
        count += 1
    if data is not None:
        if isinstance(data, str):
            text_of(data, &fields[count])
        elif isinstance(data, bytes):
            bytes_of(<bytes>data, &fields[count])
        else:
            raise TypeError(f"data is of type {type(data).__name__}; give str or bytes, as json.dumps(...) makes")
        name_it(&fields[count], "data: ", 6)
        count += 1
    for i in range(count):
        total += gbf_sse_field(NULL, fields[i].name, fields[i].name_nbytes, fields[i].at, fields[i].nbytes)
    made = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>total)
    out = <uint8_t *>PyBytes_AS_STRING(made)
    for i in range(count):
        out += gbf_sse_field(out, fields[i].name, fields[i].name_nbytes, fields[i].at, fields[i].nbytes)
    out[0] = c"\n"
    return made
