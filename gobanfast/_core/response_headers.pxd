# New lists of the pairs of a response, of bytes and of str. None of them changes what it is given.

# The request id, unless the application says one, and cookies (None: none) behind the pairs.
cdef list with_ours(object headers, str request_id, list cookies)
cdef list texts_with_ours(object headers, str request_id, list cookies)

# The same of a resource that share rules own: without the application's access-control-*, which are counted, and with
# `fields` in their place (None: none) and one Vary line that lists `varies`, too.
cdef list in_place_of_theirs(object headers, str request_id, list cookies, tuple varies, tuple fields,
                             Py_ssize_t *foreign)
cdef list texts_in_place_of_theirs(object headers, str request_id, list cookies, tuple varies, tuple fields,
                                   Py_ssize_t *foreign)
