/* The extension blaster._wire: HTTP/2 on libnghttp2. Registers the types; each stands in its own
 * file, over a kernel that knows nothing of Python. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "module_types.h"
#include "unzstd.h"
#include "wire_client_type.h"
#include "wire_receiver_type.h"
#include "wire_tls.h"

static int wire_exec(PyObject *module) {
    if (add_type(module, &wire_client_type_spec) < 0)
        return -1;
    if (add_type(module, &wire_receiver_type_spec) < 0)
        return -1;
    if (PyModule_AddIntConstant(module, "TLS", WIRE_TLS_KNOWN) < 0)
        return -1;
    return PyModule_AddIntConstant(module, "ZSTD", UNZSTD_KNOWN);
}

static PyModuleDef_Slot wire_slots[] = {
    {Py_mod_exec, (void *)wire_exec},
    {0, NULL},
};

static struct PyModuleDef wire_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "blaster._wire",
    .m_doc = "HTTP/2 client and receiver for OTLP over gRPC.",
    .m_slots = wire_slots,
};

PyMODINIT_FUNC PyInit__wire(void) { return PyModuleDef_Init(&wire_module); }
