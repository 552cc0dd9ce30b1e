#include "scanner_type.h"

#include "scan.h"

/* Below this many bytes a scan (some 4 µs) is cheaper than the hand-over of the GIL. */
enum { GIL_RELEASE_BYTES = 16384 };

static const unsigned long long SHARE_ALL = 1ULL << 32;

typedef struct {
    PyObject_HEAD struct scanner *kernel;
    PyThread_type_lock lock; /* the kernel belongs to one thread at a time */
} Scanner;

static PyObject *scanner_type_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"capacity", NULL};
    Py_ssize_t capacity = 1 << 22;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|n:Scanner", names, &capacity))
        return NULL;
    if (capacity < 1) {
        PyErr_Format(PyExc_ValueError, "capacity %zd: at least 1", capacity);
        return NULL;
    }
    allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Scanner *self = (Scanner *)alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->lock = PyThread_allocate_lock();
    self->kernel = scanner_new((size_t)capacity);
    if (self->lock == NULL || self->kernel == NULL) {
        Py_DECREF((PyObject *)self);
        return PyErr_NoMemory();
    }
    return (PyObject *)self;
}

static void scanner_type_dealloc(Scanner *self) {
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    scanner_free(self->kernel);
    if (self->lock != NULL)
        PyThread_free_lock(self->lock);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

/* Never waits with the GIL held: the holder may need it before it lets go. */
static void lock(Scanner *self) {
    if (PyThread_acquire_lock(self->lock, NOWAIT_LOCK))
        return;
    Py_BEGIN_ALLOW_THREADS;
    PyThread_acquire_lock(self->lock, WAIT_LOCK);
    Py_END_ALLOW_THREADS;
}

/* Scans what `view` holds and releases it. */
static int64_t scan(Scanner *self, enum scan_encoding encoding, Py_buffer *view,
                    unsigned long long share, uint32_t random, int64_t *rejected) {
    const uint8_t *data = view->buf;
    size_t length = (size_t)view->len;
    int64_t spans;
    lock(self);
    if (length < GIL_RELEASE_BYTES) {
        spans =
            scanner_request_partly(self->kernel, encoding, data, length, share, random, rejected);
    } else {
        Py_BEGIN_ALLOW_THREADS;
        spans =
            scanner_request_partly(self->kernel, encoding, data, length, share, random, rejected);
        Py_END_ALLOW_THREADS;
    }
    PyThread_release_lock(self->lock);
    PyBuffer_Release(view);
    return spans;
}

static PyObject *scan_whole(Scanner *self, enum scan_encoding encoding, PyObject *data) {
    Py_buffer view;
    int64_t rejected;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    int64_t spans = scan(self, encoding, &view, 0, 0, &rejected);
    return spans == SCAN_NO_MEMORY ? PyErr_NoMemory() : PyLong_FromLongLong(spans);
}

static PyObject *scanner_type_request(Scanner *self, PyObject *data) {
    return scan_whole(self, SCAN_PROTOBUF, data);
}

static PyObject *scanner_type_request_json(Scanner *self, PyObject *data) {
    return scan_whole(self, SCAN_JSON, data);
}

static PyObject *scanner_type_partly(Scanner *self, PyObject *args) {
    Py_buffer view;
    int json;
    unsigned long long share, random;
    int64_t rejected;
    if (!PyArg_ParseTuple(args, "y*pKK:partly", &view, &json, &share, &random))
        return NULL;
    int64_t spans = scan(self, json ? SCAN_JSON : SCAN_PROTOBUF, &view,
                         share < SHARE_ALL ? share : SHARE_ALL, (uint32_t)random, &rejected);
    if (spans == SCAN_NO_MEMORY)
        return PyErr_NoMemory();
    return Py_BuildValue("(LL)", (long long)spans, (long long)rejected);
}

static PyObject *scanner_type_counts(Scanner *self, PyObject *Py_UNUSED(ignored)) {
    struct scan_counts counts;
    lock(self);
    scanner_counts(self->kernel, &counts);
    unsigned long long sampling = scanner_sampling(self->kernel);
    PyThread_release_lock(self->lock);
    return Py_BuildValue(
        "{sKsKsKsKsKsKsKs(KKK)}", "requests", (unsigned long long)counts.requests, "malformed",
        (unsigned long long)counts.malformed, "bytes", (unsigned long long)counts.bytes, "spans",
        (unsigned long long)counts.spans, "duplicates", (unsigned long long)counts.duplicates,
        "invalid", (unsigned long long)counts.invalid, "sampling", sampling, "violations",
        (unsigned long long)counts.violations[SCAN_SLOW],
        (unsigned long long)counts.violations[SCAN_ERROR],
        (unsigned long long)counts.violations[SCAN_MISSING_AUTH]);
}

static PyObject *scanner_type_watch(Scanner *self, PyObject *argument) {
    unsigned long rules = PyLong_AsUnsignedLong(argument);
    if (rules == (unsigned long)-1 && PyErr_Occurred())
        return NULL;
    scanner_watch(self->kernel, rules);
    Py_RETURN_NONE;
}

static PyObject *scanner_type_take(Scanner *self, PyObject *Py_UNUSED(ignored)) {
    uint64_t missed;
    struct scan_violation *taken = PyMem_Malloc(SCAN_VIOLATIONS_ROOM * sizeof *taken);
    if (taken == NULL)
        return PyErr_NoMemory();
    lock(self);
    size_t count = scanner_take(self->kernel, taken, SCAN_VIOLATIONS_ROOM, &missed);
    PyThread_release_lock(self->lock);
    PyObject *result =
        Py_BuildValue("(y#K)", (const char *)taken, (Py_ssize_t)(count * sizeof *taken),
                      (unsigned long long)missed);
    PyMem_Free(taken);
    return result;
}

static PyObject *scanner_type_sampling(Scanner *self, void *Py_UNUSED(closure)) {
    lock(self);
    unsigned long long sampling = scanner_sampling(self->kernel);
    PyThread_release_lock(self->lock);
    return PyLong_FromUnsignedLongLong(sampling);
}

static PyMethodDef scanner_methods[] = {
    {"request", (PyCFunction)scanner_type_request, METH_O,
     "request(data)\n--\n\nScans the bytes of one ExportTraceServiceRequest and adds it to the "
     "counts.\n\nReturns its number of spans, or -1 when it is malformed."},
    {"request_json", (PyCFunction)scanner_type_request_json, METH_O,
     "request_json(data)\n--\n\nAs request, for the message in OTLP/JSON."},
    {"partly", (PyCFunction)scanner_type_partly, METH_VARARGS,
     "partly(data, json, share, random)\n--\n\nAs request or request_json, but a share (of "
     "2**32) of the spans does not count.\nReturns (spans, rejected)."},
    {"counts", (PyCFunction)scanner_type_counts, METH_NOARGS,
     "counts()\n--\n\nWhat was counted so far, as one consistent dict."},
    {"watch", (PyCFunction)scanner_type_watch, METH_O,
     "watch(rules)\n--\n\nFrom now on keeps the spans that break one of these rules (bit r: rule "
     "r); 0: none."},
    {"take", (PyCFunction)scanner_type_take, METH_NOARGS,
     "take()\n--\n\nThe spans that were kept, as records (see native/scan.h), and how many found "
     "no "
     "room."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef scanner_getset[] = {
    {"sampling", (getter)scanner_type_sampling, NULL,
     "One ID in how many is checked for duplicates now; 1 is exact.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot scanner_slots[] = {
    {Py_tp_doc, "Scanner(capacity=4194304)\n--\n\nCounts spans, checks IDs and evaluates the rules "
                "over the requests given to it.\n\nUp to `capacity` IDs are remembered to find "
                "duplicates; beyond it a sample of them.\nAny thread may use it; one at a time is "
                "served."},
    {Py_tp_new, (void *)scanner_type_new},
    {Py_tp_dealloc, (void *)scanner_type_dealloc},
    {Py_tp_methods, scanner_methods},
    {Py_tp_getset, scanner_getset},
    {0, NULL},
};

PyType_Spec scanner_type_spec = {
    .name = "blaster._native.Scanner",
    .basicsize = sizeof(Scanner),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = scanner_slots,
};
