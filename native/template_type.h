/* The Python type blaster._native.Template over the kernel in stamp.h. */
#ifndef BLASTER_TEMPLATE_TYPE_H
#define BLASTER_TEMPLATE_TYPE_H

#include <Python.h>

extern PyType_Spec template_type_spec;

#endif
