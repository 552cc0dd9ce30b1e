/* The extension blaster._wire: HTTP/2 on libnghttp2. Registers the types; each stands in its own
 * file, over a kernel that knows nothing of Python. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "module_types.h"
#include "unzstd.h"
#include "wire_client.h"
#include "wire_client_type.h"
#include "wire_receiver_type.h"
#include "wire_tls.h"

/* Adds a tuple of strings; Python compares its own definition with it. */
static int add_names(PyObject *module, const char *name, const char *const *names, size_t count) {
    PyObject *tuple = PyTuple_New((Py_ssize_t)count);
    for (size_t i = 0; tuple != NULL && i < count; i++) {
        PyObject *text = PyUnicode_FromString(names[i]);
        if (text == NULL || PyTuple_SetItem(tuple, (Py_ssize_t)i, text) < 0)
            Py_CLEAR(tuple);
    }
    const int result = tuple != NULL ? PyModule_AddObjectRef(module, name, tuple) : -1;
    Py_XDECREF(tuple);
    return result;
}

#define NAME_OF(name) #name,
static const char *const OUTCOME_FIELDS[] = {WIRE_OUTCOME_FIELDS(NAME_OF)};
static const char *const RAISED_FIELDS[] = {WIRE_RAISED_FIELDS};
enum {
    OUTCOME_COUNT = sizeof OUTCOME_FIELDS / sizeof *OUTCOME_FIELDS,
    RAISED_COUNT = sizeof RAISED_FIELDS / sizeof *RAISED_FIELDS,
};
_Static_assert(sizeof(struct wire_outcome) == OUTCOME_COUNT * sizeof(int64_t), "a word each");
_Static_assert(RAISED_COUNT == WIRE_SENT_COUNT + WIRE_BLOCKED_COUNT, "a name for every word");

static int wire_exec(PyObject *module) {
    if (add_type(module, &wire_client_type_spec) < 0)
        return -1;
    if (add_type(module, &wire_receiver_type_spec) < 0)
        return -1;
    if (add_names(module, "OUTCOME_FIELDS", OUTCOME_FIELDS, OUTCOME_COUNT) < 0 ||
        add_names(module, "RAISED_FIELDS", RAISED_FIELDS, RAISED_COUNT) < 0)
        return -1;
    if (PyModule_AddIntConstant(module, "MAX_CONNECTIONS", WIRE_MAX_CONNECTIONS) < 0 ||
        PyModule_AddIntConstant(module, "MAX_IN_FLIGHT", WIRE_MAX_IN_FLIGHT) < 0)
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
