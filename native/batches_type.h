/* The Python type blaster._native.Batches over the kernel in batches.h. */
#ifndef BLASTER_BATCHES_TYPE_H
#define BLASTER_BATCHES_TYPE_H

#include <Python.h>

extern PyType_Spec batches_type_spec;

#endif
