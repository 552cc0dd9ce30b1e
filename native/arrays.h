/* Arrays that Python gives: their views are held across the GIL's release. */
#ifndef BLASTER_ARRAYS_H
#define BLASTER_ARRAYS_H

#include <Python.h>

enum { ARRAYS_MAX = 20 };

struct arrays {
    Py_buffer views[ARRAYS_MAX];
    size_t count;
};

/* The bytes of a contiguous array, whatever its items; NULL with an exception. */
void *arrays_bytes(struct arrays *arrays, PyObject *object, int flags, Py_ssize_t *length);

/* The items of a contiguous array of integers, signed or not, of this item size; NULL with an
 * exception. */
void *arrays_take(struct arrays *arrays, PyObject *object, Py_ssize_t size, int flags,
                  Py_ssize_t *items);

void arrays_release(struct arrays *arrays);

#endif
