"""Objects that exist only whole: the constructor slot of a class calls its `_make`, which works everything out first.

An object that `__init__` fills in can be had without it (`C.__new__(C)`, a subclass, a generator among the arguments
that looks at `gc.get_objects()`, `__del__` after an error), and then every method reads through null pointers. Here
`C(...)`, `C.__new__(C, ...)` and those of subclasses all are one call of `C._make`: a class method that allocates last,
by `bare`, and fills in what cannot fail; or a text, the TypeError that says where such objects come from.
"""

from cpython.object cimport newfunc


cdef extern from *:
    """
    /* Says "Class() takes ..." where the TypeError at hand says "_make() takes ...". */
    static void gbf_name_class(PyTypeObject *cls)
    {
        const char *name = strrchr(cls->tp_name, '.'), *said;
        PyObject *type, *value, *trace, *text;
        PyErr_Fetch(&type, &value, &trace);
        text = value == NULL ? NULL : PyObject_Str(value);
        said = text == NULL ? NULL : PyUnicode_AsUTF8(text);
        PyErr_Clear();
        if (said != NULL && strncmp(said, "_make() ", 8) == 0) {
            PyErr_Format(PyExc_TypeError, "%s() %s", name == NULL ? cls->tp_name : name + 1, said + 8);
            Py_XDECREF(type);
            Py_XDECREF(value);
            Py_XDECREF(trace);
        } else {
            PyErr_Restore(type, value, trace);
        }
        Py_XDECREF(text);
    }
    static PyObject *gbf_make(PyTypeObject *cls, PyObject *args, PyObject *options)
    {
        PyObject *made = NULL, *make = PyObject_GetAttrString((PyObject *)cls, "_make");
        if (make != NULL && PyUnicode_Check(make))
            PyErr_SetObject(PyExc_TypeError, make);
        else if (make != NULL)
            made = PyObject_Call(make, args, options);
        if (made == NULL && PyErr_ExceptionMatches(PyExc_TypeError))
            gbf_name_class(cls);
        Py_XDECREF(make);
        return made;
    }
    /* Puts `gbf_make` in the place of the allocator that Cython wrote, and returns that one. Inside the module
     * `C.__new__(C)` still is a direct call of it. */
    static newfunc gbf_only_whole(PyObject *cls)
    {
        newfunc allocate = ((PyTypeObject *)cls)->tp_new;
        ((PyTypeObject *)cls)->tp_new = gbf_make;
        ((PyTypeObject *)cls)->tp_vectorcall = NULL; /* Cython's, which calls the allocator, too */
        return allocate;
    }
    static inline PyObject *gbf_bare(newfunc allocate, PyObject *cls)
    {
        PyObject *made = NULL, *none = PyTuple_New(0);
        if (none != NULL)
            made = allocate((PyTypeObject *)cls, none, NULL);
        Py_XDECREF(none);
        return made;
    }
    """
    newfunc only_whole "gbf_only_whole"(object cls) noexcept
    object bare "gbf_bare"(newfunc allocate, object cls)
