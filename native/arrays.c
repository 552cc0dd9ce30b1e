#include "arrays.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

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

/* A format of the struct module: one integer in the machine's own byte order. */
static bool is_integer(const char *format) {
    if (format == NULL)
        return true; /* unsigned bytes */
    if (*format == '@' || *format == '=')
        format++;
    return format[0] != 0 && strchr("bBhHiIlLqQnN", format[0]) != NULL && format[1] == 0;
}

void *arrays_take(struct arrays *arrays, PyObject *object, Py_ssize_t size, int flags,
                  Py_ssize_t *items) {
    const Py_buffer *view = take(arrays, object, flags | PyBUF_FORMAT);
    if (view == NULL)
        return NULL;
    if (view->itemsize != size || !is_integer(view->format) ||
        (uintptr_t)view->buf % (size_t)size != 0) {
        PyErr_Format(PyExc_TypeError, "array %zu: its items must be aligned integers of %zd bytes",
                     arrays->count, size);
        return NULL;
    }
    *items = view->len / size;
    return view->buf;
}
