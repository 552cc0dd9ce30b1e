/* What both extension modules do with their types. */
#ifndef BLASTER_MODULE_TYPES_H
#define BLASTER_MODULE_TYPES_H

#include <Python.h>

/* Makes the type of `spec` and adds it to the module; -1 with an exception set on failure. */
static inline int add_type(PyObject *module, PyType_Spec *spec) {
    PyObject *type = PyType_FromModuleAndSpec(module, spec, NULL);
    if (type == NULL)
        return -1;
    int result = PyModule_AddType(module, (PyTypeObject *)type);
    Py_DECREF(type);
    return result;
}

#endif
