/* The Python type blaster._native.Scanner over the kernel in scan.h. */
#ifndef BLASTER_SCANNER_TYPE_H
#define BLASTER_SCANNER_TYPE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

extern PyType_Spec scanner_type_spec;

#endif
