#include "arrays.h"

#include <stdint.h>

void arrays_release(struct arrays *arrays) {
    while (arrays->count > 0)
        PyBuffer_Release(&arrays->views[--arrays->count]);
}

static const Py_buffer *take(struct arrays *arrays, PyObject *object, int flags) {
    Py_buffer *view = &arrays->views[arrays->count];
    if (PyObject_GetBuffer(object, view, PyBUF_C_CONTIGUOUS | flags) < 0)
        return NULL;
    arrays->count++;
    return view;
}

void *arrays_bytes(struct arrays *arrays, PyObject *object, int flags, Py_ssize_t *length) {
    const Py_buffer *view = take(arrays, object, flags);
    if (view == NULL)
        return NULL;
    *length = view->len;
    return view->buf;
}

void *arrays_take(struct arrays *arrays, PyObject *object, Py_ssize_t size, int flags,
                  Py_ssize_t *items) {
    const Py_buffer *view = take(arrays, object, flags);
    if (view == NULL)
        return NULL;
    if (view->itemsize != size || (uintptr_t)view->buf % (size_t)size != 0) {
        PyErr_Format(PyExc_TypeError, "array %zu: its items must be aligned and of %zd bytes",
                     arrays->count, size);
        return NULL;
    }
    *items = view->len / size;
    return view->buf;
}
