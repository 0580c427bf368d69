# New lists of the pairs of a response. None of them changes what it is given.

# The request id, unless the application says one, and cookies (None: none) behind the pairs; of bytes, and of str.
cdef list with_ours(object headers, str request_id, list cookies)
cdef list texts_with_ours(object headers, str request_id, list cookies)

# The pairs of a resource that share rules own: without the application's access-control-*, which are counted, and with
# `fields` in their place (None: none) and one Vary line that lists `varies`, too.
cdef list without_theirs(object headers, tuple varies, tuple fields, Py_ssize_t *foreign)
cdef list texts_without_theirs(object headers, tuple varies, tuple fields, Py_ssize_t *foreign)
