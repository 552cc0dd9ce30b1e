#include "wire_receiver_type.h"

#include "wire_receiver.h"

#include <errno.h>
#include <netdb.h>
#include <string.h>

typedef struct {
    PyObject_HEAD struct receiver *kernel; /* NULL once closed */
    struct receiver_counts last;           /* what was counted when it was closed */
    int running;
    int scanning; /* calls of scan() under way */
    int scans;
    unsigned short port;
} Receiver;

static PyObject *os_error(int error) {
    errno = error;
    return PyErr_SetFromErrno(PyExc_OSError);
}

/* A positive number of seconds as nanoseconds; 0 with an exception set. */
static int64_t nanoseconds(const char *name, double seconds) {
    if (seconds > 0 && seconds <= 1e9)
        return (int64_t)(seconds * 1e9);
    PyErr_Format(PyExc_ValueError, "%s: more than 0 seconds, at most 10**9", name);
    return 0;
}

static int in_range(const char *name, Py_ssize_t value, Py_ssize_t low, Py_ssize_t high) {
    if (value >= low && value <= high)
        return 1;
    PyErr_Format(PyExc_ValueError, "%s %zd: %zd to %zd", name, value, low, high);
    return 0;
}

static PyObject *receiver_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"host",
                            "port",
                            "scanner_capacity",
                            "max_message",
                            "max_connections",
                            "max_streams",
                            "max_buffered",
                            "scan",
                            "handshake_timeout_s",
                            "request_timeout_s",
                            "idle_timeout_s",
                            "capacity",
                            "queue",
                            "patience_s",
                            "service_time_s",
                            NULL};
    const char *host = "127.0.0.1";
    Py_ssize_t port = 0, capacity = 1 << 22, message = 1 << 22, connections = 1024, streams = 1024;
    Py_ssize_t buffered = 1 << 30, rate = 0;
    int scan = 1, gai = 0, queue = 0;
    double handshake = 10, request = 60, idle = 300, patience = 0.02, service = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|sn$nnnnnpdddnpdd:Receiver", names, &host,
                                     &port, &capacity, &message, &connections, &streams, &buffered,
                                     &scan, &handshake, &request, &idle, &rate, &queue, &patience,
                                     &service))
        return NULL;
    if (!in_range("port", port, 0, 65535) ||
        !in_range("scanner_capacity", capacity, 1, PY_SSIZE_T_MAX) ||
        !in_range("max_message", message, 1, INT32_MAX - 65541) ||
        !in_range("max_connections", connections, 1, 1 << 20) ||
        !in_range("max_streams", streams, 1, 1 << 20) ||
        !in_range("max_buffered", buffered, 1, PY_SSIZE_T_MAX) ||
        !in_range("capacity", rate, 0, CAPACITY_MOST))
        return NULL;
    if (rate > 0 && !scan)
        return PyErr_Format(PyExc_ValueError, "capacity %zd: needs scan", rate);
    if (!(service >= 0 && service <= 1e9))
        return PyErr_Format(PyExc_ValueError, "service_time_s: 0 to 10**9 seconds");
    struct receiver_options options = {
        .host = host,
        .port = (uint16_t)port,
        .scanner_capacity = (size_t)capacity,
        .scan = scan != 0,
        .max_message = (uint32_t)message,
        .max_connections = (uint32_t)connections,
        .max_streams = (uint32_t)streams,
        .max_buffered = (size_t)buffered,
        .capacity = {.rate = rate, .queue = queue != 0, .service_time = (int64_t)(service * 1e9)},
    };
    if ((options.capacity.patience = nanoseconds("patience_s", patience)) == 0)
        return NULL;
    if ((options.handshake_timeout = nanoseconds("handshake_timeout_s", handshake)) == 0 ||
        (options.request_timeout = nanoseconds("request_timeout_s", request)) == 0 ||
        (options.idle_timeout = nanoseconds("idle_timeout_s", idle)) == 0)
        return NULL;
    allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Receiver *self = (Receiver *)alloc(type, 0);
    if (self == NULL)
        return NULL;
    int error = receiver_open(&self->kernel, &options, &gai);
    if (error < 0) {
        Py_DECREF((PyObject *)self);
        if (gai != 0)
            return PyErr_Format(PyExc_OSError, "host %s: %s", host, gai_strerror(gai));
        return os_error(-error);
    }
    self->port = receiver_port(self->kernel);
    self->scans = scan != 0;
    return (PyObject *)self;
}

static void shut(Receiver *self) {
    if (self->kernel == NULL)
        return;
    receiver_counts(self->kernel, &self->last);
    receiver_close(self->kernel);
    self->kernel = NULL;
}

static void receiver_dealloc(Receiver *self) {
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    shut(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static int idle(const Receiver *self) {
    if (!self->running && self->scanning == 0)
        return 1;
    PyErr_SetString(PyExc_RuntimeError,
                    self->running ? "the receiver is running" : "the receiver is scanning");
    return 0;
}

static PyObject *receiver_type_run(Receiver *self, PyObject *stop) {
    Py_buffer view;
    int result = 0;
    if (!idle(self))
        return NULL;
    if (self->kernel == NULL) {
        PyErr_SetString(PyExc_ValueError, "the receiver is closed");
        return NULL;
    }
    if (PyObject_GetBuffer(stop, &view, PyBUF_WRITABLE | PyBUF_C_CONTIGUOUS) < 0)
        return NULL;
    if (view.len < (Py_ssize_t)sizeof(int64_t) || (uintptr_t)view.buf % _Alignof(int64_t) != 0) {
        PyErr_SetString(PyExc_ValueError, "stop: a buffer of one int64");
        goto done;
    }
    self->running = 1;
    do {
        Py_BEGIN_ALLOW_THREADS;
        result = receiver_run(self->kernel, view.buf);
        Py_END_ALLOW_THREADS;
    } while (result == -EINTR && PyErr_CheckSignals() == 0);
    self->running = 0;
    if (result < 0 && !PyErr_Occurred())
        os_error(-result);
done:
    PyBuffer_Release(&view);
    return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

static struct receiver_counts counts_now(Receiver *self) {
    struct receiver_counts counts = self->last;
    if (self->kernel != NULL)
        receiver_counts(self->kernel, &counts);
    return counts;
}

static PyObject *receiver_type_counts(Receiver *self, PyObject *Py_UNUSED(ignored)) {
    struct receiver_counts counts = counts_now(self);
    const struct scan_counts *scan = &counts.scan;
    return Py_BuildValue("{sKsKsKsKsKsKsKs(KKK)}", "requests", (unsigned long long)scan->requests,
                         "malformed", (unsigned long long)scan->malformed, "bytes",
                         (unsigned long long)scan->bytes, "spans", (unsigned long long)scan->spans,
                         "duplicates", (unsigned long long)scan->duplicates, "invalid",
                         (unsigned long long)scan->invalid, "sampling",
                         (unsigned long long)counts.sampling, "violations",
                         (unsigned long long)scan->violations[SCAN_SLOW],
                         (unsigned long long)scan->violations[SCAN_ERROR],
                         (unsigned long long)scan->violations[SCAN_MISSING_AUTH]);
}

static PyObject *receiver_type_traffic(Receiver *self, PyObject *Py_UNUSED(ignored)) {
    struct receiver_counts counts = counts_now(self);
    return Py_BuildValue(
        "{sKsKsKsKsKsK}", "connections", (unsigned long long)counts.connections, "accepted",
        (unsigned long long)counts.accepted, "turned_away", (unsigned long long)counts.turned_away,
        "connection_errors", (unsigned long long)counts.connection_errors, "refused",
        (unsigned long long)counts.refused, "buffered", (unsigned long long)counts.buffered);
}

static PyObject *receiver_type_scan(Receiver *self, PyObject *args) {
    Py_buffer view;
    int json;
    unsigned long long share, random;
    int64_t spans, rejected = 0;
    if (!PyArg_ParseTuple(args, "y*pKK:scan", &view, &json, &share, &random))
        return NULL;
    if (self->kernel == NULL || !self->scans || share > 1ULL << 32) {
        PyBuffer_Release(&view);
        return PyErr_Format(PyExc_ValueError, "closed, or nothing is scanned, or a share above 1");
    }
    self->scanning++;
    Py_BEGIN_ALLOW_THREADS;
    spans = receiver_scan(self->kernel, json ? SCAN_JSON : SCAN_PROTOBUF, view.buf,
                          (size_t)view.len, share, (uint32_t)random, &rejected);
    Py_END_ALLOW_THREADS;
    self->scanning--;
    PyBuffer_Release(&view);
    if (spans == SCAN_NO_MEMORY)
        return PyErr_NoMemory();
    return Py_BuildValue("(LL)", (long long)spans, (long long)rejected);
}

/* One row of blaster/sink/fault.py, Fault.row(). */
static int read_fault(PyObject *row, struct fault *fault) {
    int kind, exponential, once;
    unsigned long long share;
    long long from, until, low, high;
    const char *text;
    Py_ssize_t length;
    if (!PyArg_ParseTuple(row, "iKLLLLppy#:fault", &kind, &share, &from, &until, &low, &high,
                          &exponential, &once, &text, &length))
        return -1;
    if (kind <= FAULT_NONE || kind >= FAULT_KINDS || share > 1ULL << 32 || from < 0 || low < 0 ||
        high < low || high - low == INT64_MAX || length > FAULT_TEXT_MAX ||
        (kind == FAULT_STATUS && low > 16) || (kind == FAULT_HTTP && (low < 200 || low > 599)) ||
        (kind == FAULT_OVERSIZE && low > 1 << 26) || (kind == FAULT_RST && low > INT32_MAX) ||
        (kind == FAULT_PARTIAL && low > INT64_C(1) << 32) || high > INT64_C(3600000000000)) {
        PyErr_SetString(PyExc_ValueError, "a fault is out of its range");
        return -1;
    }
    *fault = (struct fault){.kind = (enum fault_kind)kind,
                            .share = share,
                            .from = from,
                            .until = until,
                            .low = low,
                            .high = high,
                            .exponential = exponential != 0,
                            .once = once != 0};
    memcpy(fault->text, text, (size_t)length);
    return 0;
}

static PyObject *receiver_type_fault(Receiver *self, PyObject *args) {
    unsigned long long seed;
    PyObject *rows;
    struct fault faults[FAULTS_MAX];
    if (!PyArg_ParseTuple(args, "KO!:fault", &seed, &PyTuple_Type, &rows))
        return NULL;
    Py_ssize_t count = PyTuple_Size(rows);
    if (count > FAULTS_MAX)
        return PyErr_Format(PyExc_ValueError, "faults: at most %d", FAULTS_MAX);
    for (Py_ssize_t i = 0; i < count; i++)
        if (read_fault(PyTuple_GetItem(rows, i), &faults[i]) < 0)
            return NULL;
    if (self->kernel != NULL)
        receiver_fault(self->kernel, seed, faults, (size_t)count);
    Py_RETURN_NONE;
}

static PyObject *receiver_type_fault_hits(Receiver *self, PyObject *Py_UNUSED(ignored)) {
    uint64_t hits[FAULTS_MAX];
    size_t count = self->kernel != NULL ? receiver_fault_hits(self->kernel, hits) : 0;
    PyObject *result = PyTuple_New((Py_ssize_t)count);
    for (size_t i = 0; result != NULL && i < count; i++) {
        PyObject *number = PyLong_FromUnsignedLongLong(hits[i]);
        if (number == NULL || PyTuple_SetItem(result, (Py_ssize_t)i, number) < 0) {
            Py_DECREF(result);
            return NULL;
        }
    }
    return result;
}

static PyObject *receiver_type_watch(Receiver *self, PyObject *argument) {
    unsigned long rules = PyLong_AsUnsignedLong(argument);
    if (rules == (unsigned long)-1 && PyErr_Occurred())
        return NULL;
    if (self->kernel != NULL)
        receiver_watch(self->kernel, rules);
    Py_RETURN_NONE;
}

static PyObject *receiver_type_take(Receiver *self, PyObject *Py_UNUSED(ignored)) {
    uint64_t missed = 0;
    size_t count = 0;
    struct scan_violation *taken = PyMem_Malloc(SCAN_VIOLATIONS_ROOM * sizeof *taken);
    if (taken == NULL)
        return PyErr_NoMemory();
    if (self->kernel != NULL) /* the GIL keeps other takers away */
        count = receiver_take(self->kernel, taken, SCAN_VIOLATIONS_ROOM, &missed);
    PyObject *result =
        Py_BuildValue("(y#K)", (const char *)taken, (Py_ssize_t)(count * sizeof *taken),
                      (unsigned long long)missed);
    PyMem_Free(taken);
    return result;
}

static PyObject *receiver_type_freeze(Receiver *self, PyObject *argument) {
    double seconds = PyFloat_AsDouble(argument);
    if (seconds == -1 && PyErr_Occurred())
        return NULL;
    if (!(seconds >= 0 && seconds <= 3600))
        return PyErr_Format(PyExc_ValueError, "seconds: 0 to 3600");
    if (self->kernel != NULL)
        receiver_freeze(self->kernel, (int64_t)(seconds * 1e9));
    Py_RETURN_NONE;
}

static PyObject *receiver_type_close(Receiver *self, PyObject *Py_UNUSED(ignored)) {
    if (!idle(self))
        return NULL;
    shut(self);
    Py_RETURN_NONE;
}

static PyObject *receiver_type_port(Receiver *self, void *Py_UNUSED(closure)) {
    return PyLong_FromLong(self->port);
}

static PyMethodDef receiver_methods[] = {
    {"run", (PyCFunction)receiver_type_run, METH_O,
     "run(stop)\n--\n\nServes, without the GIL, until the int64 in the buffer `stop` is not 0; "
     "that "
     "is\nlooked at every 20 ms at least. May be called again."},
    {"counts", (PyCFunction)receiver_type_counts, METH_NOARGS,
     "counts()\n--\n\nWhat was counted so far, as Scanner.counts() gives it. Any thread may ask.\n"
     "Everything that was answered is in it."},
    {"traffic", (PyCFunction)receiver_type_traffic, METH_NOARGS,
     "traffic()\n--\n\nConnections open, accepted, turned_away and ended by connection errors; "
     "calls\n"
     "refused with an error; bytes buffered for messages."},
    {"scan", (PyCFunction)receiver_type_scan, METH_VARARGS,
     "scan(data, json, share, random)\n--\n\nScans a message that came another way, in protobuf "
     "or JSON; of a share (of 2**32) of its spans nothing\ncounts. Returns (spans, rejected); "
     "spans is -1 when it is "
     "malformed. Any thread may ask."},
    {"fault", (PyCFunction)receiver_type_fault, METH_VARARGS,
     "fault(seed, rows)\n--\n\nFrom now on requests meet these faults. Any thread may ask."},
    {"fault_hits", (PyCFunction)receiver_type_fault_hits, METH_NOARGS,
     "fault_hits()\n--\n\nHow often each fault was met."},
    {"freeze", (PyCFunction)receiver_type_freeze, METH_O,
     "freeze(seconds)\n--\n\nStands still so long, as if the process were stopped. Any thread may "
     "ask."},
    {"watch", (PyCFunction)receiver_type_watch, METH_O,
     "watch(rules)\n--\n\nAs Scanner.watch(): keeps the spans that break one of these rules."},
    {"take", (PyCFunction)receiver_type_take, METH_NOARGS,
     "take()\n--\n\nAs Scanner.take(): the spans that were kept. Nothing once it is closed."},
    {"close", (PyCFunction)receiver_type_close, METH_NOARGS,
     "close()\n--\n\nCloses the port and all connections; the counts stay readable."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef receiver_getset[] = {
    {"port", (getter)receiver_type_port, NULL, "The port listened on.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot receiver_slots[] = {
    {Py_tp_doc,
     "Receiver(host='127.0.0.1', port=0, *, scanner_capacity=4194304, max_message=4194304, "
     "max_connections=1024, max_streams=1024, max_buffered=1073741824, scan=True, "
     "handshake_timeout_s=10.0, request_timeout_s=60.0, idle_timeout_s=300.0, capacity=0, "
     "queue=False, patience_s=0.02, service_time_s=0.0)\n--\n\n"
     "Receives OTLP traces over cleartext gRPC and scans every span. Listens from the start on,\n"
     "serves while run() runs. With scan=False messages are counted and thrown away unread."},
    {Py_tp_new, (void *)receiver_new},
    {Py_tp_dealloc, (void *)receiver_dealloc},
    {Py_tp_methods, receiver_methods},
    {Py_tp_getset, receiver_getset},
    {0, NULL},
};

PyType_Spec wire_receiver_type_spec = {
    .name = "blaster._wire.Receiver",
    .basicsize = sizeof(Receiver),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = receiver_slots,
};
