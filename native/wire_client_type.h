/* The Python type blaster._wire.Client. */
#ifndef BLASTER_WIRE_CLIENT_TYPE_H
#define BLASTER_WIRE_CLIENT_TYPE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

extern PyType_Spec wire_client_type_spec;

#endif
