/* The Python type blaster._wire.Receiver over the kernel in wire_receiver.h. */
#ifndef BLASTER_WIRE_RECEIVER_TYPE_H
#define BLASTER_WIRE_RECEIVER_TYPE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

extern PyType_Spec wire_receiver_type_spec;

#endif
