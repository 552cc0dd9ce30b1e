#include "wire_client_type.h"

typedef struct {
    PyObject_HEAD
} ClientObject;

static PyType_Slot client_slots[] = {
    {Py_tp_doc, "Sends batches over HTTP/2."},
    {0, NULL},
};

static PyType_Spec client_spec = {
    .name = "blaster._wire.Client",
    .basicsize = sizeof(ClientObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = client_slots,
};

int wire_client_type_add(PyObject *module) {
    PyObject *type = PyType_FromModuleAndSpec(module, &client_spec, NULL);
    if (type == NULL)
        return -1;
    int result = PyModule_AddObjectRef(module, "Client", type);
    Py_DECREF(type);
    return result;
}
