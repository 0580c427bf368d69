"""CompiledGrant: header fields of a grant, worked out once and shared by all its responses."""

cimport cython
from libc.stdint cimport uint8_t, uint32_t

from gobanfast._core.allowed_headers cimport AllowedHeaders
from gobanfast._core.made cimport only_whole

SIMPLE_METHODS = (b"GET", b"HEAD", b"POST")
"""Methods that a page may use without asking; a grant need not list them."""
ANYBODY = (b"access-control-allow-origin", b"*")


@cython.final
cdef class CompiledGrant:
    """What a `grant` rule gives to an origin, as header fields. Frozen; any number of threads.

    Args:
        any_origin: whether it gives to whoever asks: never with credentials.
        credentials: whether cookies may be sent.
        methods, headers: names that a preflight may announce, "*" for any; of headers "*" covers no authorization.
        expose: names of response headers that the page may read.
        max_age: seconds for which a browser may remember a preflight; None: as it likes.
    """

    @staticmethod
    def _make(bint any_origin, *, bint credentials=False, methods=(), headers=(), expose=(), max_age=None):
        cdef CompiledGrant made
        if any_origin and credentials:
            raise ValueError("a grant to any origin has no credentials")
        listed = frozenset([name.encode("latin-1") for name in methods])
        allowed = AllowedHeaders([name for name in headers if name != "*"], any="*" in headers)
        both = ((b"access-control-allow-credentials", b"true"),) if credentials else ()
        exposed = ((b"access-control-expose-headers", ", ".join(expose).encode("latin-1")),) if expose else ()
        age = () if max_age is None else ((b"access-control-max-age", b"%d" % max_age),)
        made = CompiledGrant.__new__(CompiledGrant)
        made.any_origin, made.credentials, made.methods = any_origin, credentials, listed.union(SIMPLE_METHODS)
        made.any_method, made.headers = b"*" in listed, allowed
        made.fields, made.preflight = both + exposed, both + age
        return made

    cdef tuple response(self, bytes origin):
        if self.any_origin:
            return (ANYBODY, *self.fields)
        return ((b"access-control-allow-origin", origin), *self.fields)

    cdef object answer(self, bytes origin, bytes method, bytes names):
        if method is None or (not self.any_method and method not in self.methods):
            return "method"
        if names is not None and not self.headers.allows(<const uint8_t *><const char *>names, <uint32_t>len(names)):
            return "headers"
        fields = [ANYBODY if self.any_origin else (b"access-control-allow-origin", origin),
                  (b"access-control-allow-methods", method)]
        if names:
            fields.append((b"access-control-allow-headers", names))
        return (*fields, *self.preflight)

    def response_fields(self, bytes origin not None, /):
        """Header fields of a response to a page of this origin."""
        return self.response(origin)

    def preflight_fields(self, bytes origin not None, bytes method not None, bytes names=None, /):
        """Header fields of the answer to its preflight; "method" or "headers" where that is not granted."""
        return self.answer(origin, method, names)


only_whole(CompiledGrant)
