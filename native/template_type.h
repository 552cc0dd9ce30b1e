/* The Python type blaster._native.Template over the kernel in stamp.h. */
#ifndef BLASTER_TEMPLATE_TYPE_H
#define BLASTER_TEMPLATE_TYPE_H

#include <Python.h>

#include "stamp.h"

typedef struct {
    PyObject_HEAD struct stamp_template kernel;
    struct stamp_framing *framings;
    struct stamp_variant *variants;
    int uniform;    /* whether all variants have the same strides */
    PyObject *keep; /* the bytes objects that the kernel's pointers point into */
} Template;

extern PyType_Spec template_type_spec;

#endif
