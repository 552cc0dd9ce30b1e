/* The Python type blaster._native.ColumnKernel over the kernel in columns.h. */
#ifndef BLASTER_COLUMNS_TYPE_H
#define BLASTER_COLUMNS_TYPE_H

#include <Python.h>

extern PyType_Spec columns_type_spec;

#endif
