/* The Python type blaster._wire.Client. */
#ifndef BLASTER_WIRE_CLIENT_TYPE_H
#define BLASTER_WIRE_CLIENT_TYPE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* Creates the type and adds it to the module. 0, or -1 with an exception set. */
int wire_client_type_add(PyObject *module);

#endif
