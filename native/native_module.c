/* blaster._native: the payload kernel (columns, stamp, batches) and the sink's scanner (scan). */
#include <Python.h>

#include "batches_type.h"
#include "columns_type.h"
#include "digits_functions.h"
#include "module_types.h"
#include "scanner_type.h"
#include "template_type.h"

static int module_exec(PyObject *module) {
    if (add_type(module, &columns_type_spec) < 0 || add_type(module, &template_type_spec) < 0)
        return -1;
    return add_type(module, &batches_type_spec) < 0 ? -1 : add_type(module, &scanner_type_spec);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, (void *)module_exec},
    {0, NULL},
};

static struct PyModuleDef module_def = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "blaster._native",
    .m_doc = "Makes columns, stamps batches and scans requests in C.",
    .m_methods = digits_functions,
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__native(void) { return PyModuleDef_Init(&module_def); }
