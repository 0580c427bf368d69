"""Response headers: those of the application, with ours added and those that share rules own replaced."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_1BYTE_DATA
from libc.stdint cimport uint8_t

cdef const char *OWN = "access-control-"
cdef enum:
    OWN_BYTES = 15


cdef list with_ours(object headers, str request_id, list cookies):
    cdef list made = list(headers)  # ours before anything is looked at: an allocation may run code that changes theirs
    for pair in made:
        if is_named(pair, b"x-request-id", 12):  # the application has said one
            break
    else:
        made.append((b"x-request-id", ascii_bytes(request_id)))
    if cookies is not None:
        made += cookies
    return made


cdef list in_place_of_theirs(object headers, str request_id, list cookies, tuple varies, tuple fields,
                             Py_ssize_t *foreign):
    cdef list made = [], vary = None
    cdef bint has_id = False
    for pair in headers:
        name = (<tuple>pair)[0] if type(pair) is tuple and len(<tuple>pair) == 2 else pair[0]
        if type(name) is not bytes:
            name = bytes(name)
        length = PyBytes_GET_SIZE(name)
        if length >= OWN_BYTES and begins(<bytes>name, OWN, OWN_BYTES):
            foreign[0] += 1
            continue
        if length == 4 and begins(<bytes>name, b"vary", 4):
            if vary is None:
                vary = []
            vary.append(pair[1])
            continue
        if length == 12 and begins(<bytes>name, b"x-request-id", 12):
            has_id = True
        made.append(pair)
    if not has_id:
        made.append((b"x-request-id", ascii_bytes(request_id)))
    if vary is not None:
        made.append((b"vary", merged(vary, varies)))
    elif len(varies) == 1:
        made.append((b"vary", varies[0]))
    elif len(varies) != 0:
        made.append((b"vary", b", ".join(varies)))
    if fields is not None:
        made += fields
    if cookies is not None:
        made += cookies
    return made


cdef list texts_with_ours(object headers, str request_id, list cookies):
    cdef list made = list(headers)
    for pair in made:
        name = pair[0]
        if len(name) == 12 and name.lower() == "x-request-id":
            break
    else:
        made.append(("X-Request-ID", request_id))
    if cookies is not None:
        made += [(name.decode(), value.decode("latin-1")) for name, value in cookies]
    return made


cdef list texts_in_place_of_theirs(object headers, str request_id, list cookies, tuple varies, tuple fields,
                                   Py_ssize_t *foreign):
    cdef list made = [], vary = []
    cdef bint has_id = False
    for pair in headers:
        name = pair[0].lower()
        if name.startswith("access-control-"):
            foreign[0] += 1
        elif name == "vary":
            vary.append(pair[1].encode("latin-1", "replace"))
        else:
            has_id = has_id or name == "x-request-id"
            made.append(pair)
    if not has_id:
        made.append(("X-Request-ID", request_id))
    if vary or varies:
        made.append(("Vary", merged(vary, varies).decode("latin-1")))
    if fields is not None:
        made += [(name.decode().title(), value.decode("latin-1")) for name, value in fields]
    if cookies is not None:
        made += [(name.decode(), value.decode("latin-1")) for name, value in cookies]
    return made


cdef bytes merged(list values, tuple varies):
    """One line of all that the application says varies, and of ours."""
    cdef bytes text = b", ".join([bytes(value) for value in values])
    listed = [name.strip(b" \t").lower() for name in text.split(b",")]
    if b"*" in listed:
        return text
    missing = [name for name in varies if name.lower() not in listed]
    return b", ".join([text, *missing]) if text.strip(b" ,\t") else b", ".join(missing)


cdef inline bint begins(bytes name, const char *known, int nbytes) noexcept:
    """Whether a name, which is as long, begins with a known one in lower case."""
    cdef const uint8_t *text = <const uint8_t *>PyBytes_AS_STRING(name)
    cdef int i
    for i in range(nbytes):
        if (text[i] | 0x20 if c"A" <= text[i] <= c"Z" else text[i]) != <uint8_t>known[i]:
            return False
    return True


cdef bint is_named(object pair, const char *known, int nbytes) except -1:
    """Whether a name is a known one, in any case."""
    name = (<tuple>pair)[0] if type(pair) is tuple and len(<tuple>pair) == 2 else pair[0]
    return type(name) is bytes and PyBytes_GET_SIZE(name) == nbytes and begins(<bytes>name, known, nbytes)


cdef inline bytes ascii_bytes(str text):
    return PyBytes_FromStringAndSize(<char *>PyUnicode_1BYTE_DATA(text), len(text)) if text.isascii() else text.encode()
