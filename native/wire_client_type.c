#include "wire_client_type.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "wire_client.h"

enum {
    FIELDS_MAX = 64,
    HOSTS_MAX = 16,
    SOURCES_MAX = 16, /* beyond it those that nobody needs are forgotten */
};

typedef struct {
    PyObject_HEAD struct wire_client *client;
    Py_buffer sent, blocked, stop;
    bool busy; /* a call runs without the GIL */
    bool closed;
    struct view *views;      /* of buffers that requests in flight still need */
    struct wire_chunk *done; /* those of them that nobody needs any more */
    PyObject *sources;       /* a list: capsules of those that requests in flight may need again */
} ClientObject;

/* A buffer with batches. */
struct view {
    struct wire_chunk chunk;
    Py_buffer buffer;
    struct view *previous, *next;
};

/* A contiguous array of int64 as a view; `count` < 0: any length. */
static int get_int64(PyObject *object, Py_buffer *view, Py_ssize_t count, int flags,
                     const char *name) {
    if (PyObject_GetBuffer(object, view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | flags) < 0)
        return -1;
    const char *format = view->format;
    if (view->itemsize != 8 || format == NULL ||
        (strcmp(format, "l") != 0 && strcmp(format, "q") != 0)) {
        PyErr_Format(PyExc_TypeError, "%s must be an array of int64", name);
    } else if (count >= 0 && view->len != 8 * count) {
        PyErr_Format(PyExc_ValueError, "%s has %zd items, not %zd", name, view->len / 8, count);
    } else {
        return 0;
    }
    PyBuffer_Release(view);
    return -1;
}

static void free_view(ClientObject *self, struct view *view) {
    if (view->previous != NULL)
        view->previous->next = view->next;
    else
        self->views = view->next;
    if (view->next != NULL)
        view->next->previous = view->previous;
    PyBuffer_Release(&view->buffer);
    PyMem_Free(view);
}

/* Takes over the buffer, which the caller holds; NULL when memory is short. */
static struct view *new_view(ClientObject *self, Py_buffer *buffer) {
    struct view *view = PyMem_Calloc(1, sizeof *view);
    if (view == NULL)
        return NULL;
    view->buffer = *buffer;
    buffer->obj = NULL;
    view->chunk.holds = 1;
    view->chunk.spare = &self->done;
    view->next = self->views;
    if (view->next != NULL)
        view->next->previous = view;
    self->views = view;
    return view;
}

static const struct batch_source *source_at(const ClientObject *self, Py_ssize_t i) {
    return PyCapsule_GetPointer(PyList_GetItem(self->sources, i), BATCH_SOURCE);
}

static void release_sources(const ClientObject *self, Py_ssize_t count) {
    for (Py_ssize_t i = 0; i < count; i++)
        source_at(self, i)->release(source_at(self, i)->context);
}

/* Takes all sources: a request of theirs may have to be made again. */
static int acquire_sources(const ClientObject *self) {
    const Py_ssize_t count = PyList_Size(self->sources);
    for (Py_ssize_t i = 0; i < count; i++) {
        if (!source_at(self, i)->acquire(source_at(self, i)->context)) {
            release_sources(self, i);
            PyErr_SetString(PyExc_RuntimeError, "the batches are in use by another thread");
            return -1;
        }
    }
    return 0;
}

static int enter(ClientObject *self) {
    if (self->busy)
        PyErr_SetString(PyExc_RuntimeError, "the client is in use by another thread");
    else if (self->closed)
        PyErr_SetString(PyExc_ValueError, "the client is closed");
    else if (acquire_sources(self) == 0)
        self->busy = true;
    return self->busy && !PyErr_Occurred() ? 0 : -1;
}

/* Gives back the buffers and the sources that nobody needs any more. */
static void leave(ClientObject *self) {
    self->busy = false;
    while (self->done != NULL) {
        struct view *view = (struct view *)self->done;
        self->done = view->chunk.next;
        free_view(self, view);
    }
    Py_ssize_t count = PyList_Size(self->sources);
    release_sources(self, count);
    const bool idle = wire_client_in_flight(self->client) == 0;
    while ((idle || count > SOURCES_MAX) && count-- > 0)
        if (idle || !wire_client_needs(self->client, source_at(self, count)))
            PyList_SetSlice(self->sources, count, count + 1, NULL);
}

static PyObject *client_connect(ClientObject *self, PyObject *argument) {
    long long until = PyLong_AsLongLong(argument);
    int result;
    if ((until == -1 && PyErr_Occurred()) || enter(self) < 0)
        return NULL;
    Py_BEGIN_ALLOW_THREADS result = wire_client_connect(self->client, until);
    Py_END_ALLOW_THREADS leave(self);
    if (result == 0)
        Py_RETURN_NONE;
    const char *reason = wire_client_reason(self->client);
    return PyUnicode_DecodeUTF8(reason, (Py_ssize_t)strlen(reason), "replace");
}

static int check_offsets(const int64_t *offsets, Py_ssize_t count, Py_ssize_t length) {
    for (Py_ssize_t i = 0; i <= count; i++) {
        if (offsets[i] < (i == 0 ? 0 : offsets[i - 1]) || offsets[i] > length ||
            (i > 0 && offsets[i] - offsets[i - 1] > INT32_MAX)) {
            PyErr_Format(PyExc_ValueError, "offsets[%zd] does not fit a buffer of %zd bytes", i,
                         length);
            return -1;
        }
    }
    return 0;
}

/* Batches that are made as they are offered. */
static int64_t send_source(ClientObject *self, PyObject *capsule, struct wire_batches *batches,
                           int64_t until) {
    int64_t offered;
    batches->source = PyCapsule_GetPointer(capsule, BATCH_SOURCE);
    if (batches->source == NULL)
        return -1;
    const struct batch_source *source = batches->source;
    bool known = false;
    for (Py_ssize_t i = 0; i < PyList_Size(self->sources); i++)
        known = known || source_at(self, i) == source;
    if (!known) {
        if (!source->acquire(source->context)) {
            PyErr_SetString(PyExc_RuntimeError, "the batches are in use by another thread");
            return -1;
        }
        if (PyList_Append(self->sources, capsule) < 0) {
            source->release(source->context);
            return -1;
        }
    }
    if (source->left(source->context) < (size_t)batches->count) {
        PyErr_SetString(PyExc_ValueError, "the source has fewer batches");
        return -1;
    }
    Py_BEGIN_ALLOW_THREADS offered = wire_client_send(self->client, batches, until);
    Py_END_ALLOW_THREADS return offered;
}

/* Batches that stand in a buffer, cut by their offsets. */
static int64_t send_buffer(ClientObject *self, PyObject *buffer, PyObject *offsets_object,
                           struct wire_batches *batches, int64_t until) {
    Py_buffer offsets = {0}, view = {0};
    int64_t offered = -1;
    if (get_int64(offsets_object, &offsets, batches->count + 1, 0, "offsets") < 0)
        return -1;
    if (PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE) < 0 ||
        check_offsets(offsets.buf, batches->count, view.len) < 0)
        goto done;
    struct view *held = new_view(self, &view);
    if (held == NULL)
        goto done;
    batches->bytes = held->buffer.buf;
    batches->offsets = offsets.buf;
    batches->chunk = &held->chunk;
    Py_BEGIN_ALLOW_THREADS offered = wire_client_send(self->client, batches, until);
    Py_END_ALLOW_THREADS wire_chunk_release(&held->chunk);
done:
    if (view.obj != NULL)
        PyBuffer_Release(&view);
    PyBuffer_Release(&offsets);
    return offered;
}

static PyObject *client_send(ClientObject *self, PyObject *args) {
    PyObject *buffer, *offsets, *scheduled_object, *spans_object, *result = NULL;
    Py_buffer scheduled = {0}, spans = {0};
    long long until, first;
    int again;
    if (!PyArg_ParseTuple(args, "OOOOLLp:send", &buffer, &offsets, &scheduled_object, &spans_object,
                          &until, &first, &again))
        return NULL;
    if (enter(self) < 0)
        return NULL;
    if (get_int64(scheduled_object, &scheduled, -1, 0, "scheduled") < 0)
        goto done;
    const Py_ssize_t count = scheduled.len / 8;
    if (get_int64(spans_object, &spans, count, 0, "spans") < 0)
        goto done;
    struct wire_batches batches = {.scheduled = scheduled.buf,
                                   .spans = spans.buf,
                                   .count = count,
                                   .first = first,
                                   .again = again != 0};
    const int64_t offered = PyCapsule_CheckExact(buffer)
                                ? send_source(self, buffer, &batches, until)
                                : send_buffer(self, buffer, offsets, &batches, until);
    if (offered >= 0)
        result = PyLong_FromLongLong(offered);
    else if (!PyErr_Occurred())
        PyErr_NoMemory();
done:
    if (scheduled.obj != NULL)
        PyBuffer_Release(&scheduled);
    if (spans.obj != NULL)
        PyBuffer_Release(&spans);
    leave(self);
    return result;
}

static PyObject *client_wait(ClientObject *self, PyObject *argument) {
    long long until = PyLong_AsLongLong(argument);
    if ((until == -1 && PyErr_Occurred()) || enter(self) < 0)
        return NULL;
    Py_BEGIN_ALLOW_THREADS wire_client_wait(self->client, until);
    Py_END_ALLOW_THREADS leave(self);
    Py_RETURN_NONE;
}

static PyObject *client_drain(ClientObject *self, PyObject *argument) {
    long long until = PyLong_AsLongLong(argument);
    if ((until == -1 && PyErr_Occurred()) || enter(self) < 0)
        return NULL;
    Py_BEGIN_ALLOW_THREADS wire_client_drain(self->client, until);
    Py_END_ALLOW_THREADS leave(self);
    Py_RETURN_NONE;
}

static PyObject *client_close(ClientObject *self, PyObject *Py_UNUSED(ignored)) {
    if (self->closed)
        Py_RETURN_NONE;
    if (enter(self) < 0)
        return NULL;
    Py_BEGIN_ALLOW_THREADS wire_client_close(self->client);
    Py_END_ALLOW_THREADS leave(self);
    self->closed = true;
    Py_RETURN_NONE;
}

/* The calls below touch what a running call changes. */
static int idle(const ClientObject *self) {
    if (!self->busy)
        return 0;
    PyErr_SetString(PyExc_RuntimeError, "the client is in use by another thread");
    return -1;
}

static PyObject *client_take(ClientObject *self, PyObject *Py_UNUSED(ignored)) {
    size_t count;
    if (idle(self) < 0)
        return NULL;
    const struct wire_outcome *outcomes = wire_client_outcomes(self->client, &count);
    PyObject *bytes =
        PyBytes_FromStringAndSize((const char *)outcomes, (Py_ssize_t)(count * sizeof *outcomes));
    if (bytes != NULL)
        wire_client_clear(self->client);
    return bytes;
}

static PyObject *client_messages(ClientObject *self, PyObject *Py_UNUSED(ignored)) {
    if (idle(self) < 0)
        return NULL;
    PyObject *map = PyDict_New();
    for (int status = 0; map != NULL && status < WIRE_STATUS_COUNT; status++) {
        size_t length;
        const char *message = wire_client_message(self->client, status, &length);
        if (message == NULL)
            continue;
        PyObject *key = PyLong_FromLong(status);
        PyObject *value = PyUnicode_DecodeUTF8(message, (Py_ssize_t)length, "replace");
        if (key == NULL || value == NULL || PyDict_SetItem(map, key, value) < 0)
            Py_CLEAR(map);
        Py_XDECREF(key);
        Py_XDECREF(value);
    }
    return map;
}

static PyObject *client_in_flight(ClientObject *self, PyObject *Py_UNUSED(ignored)) {
    return idle(self) < 0 ? NULL : PyLong_FromLongLong(wire_client_in_flight(self->client));
}

static PyObject *client_holds(ClientObject *self, PyObject *buffer) {
    Py_buffer view;
    bool held = false;
    if (idle(self) < 0 || PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    for (const struct view *other = self->views; other != NULL; other = other->next)
        held = held || other->buffer.buf == view.buf;
    PyBuffer_Release(&view);
    return PyBool_FromLong(held);
}

/* Points `out` at the items of a sequence of (name, value) pairs of bytes, which must stay alive.*/
static int get_fields(PyObject *sequence, struct wire_field *out, size_t *count) {
    Py_ssize_t length = PySequence_Size(sequence);
    if (length < 0)
        return -1;
    if (length > FIELDS_MAX) {
        PyErr_Format(PyExc_ValueError, "%zd header fields; %d are the limit", length, FIELDS_MAX);
        return -1;
    }
    for (Py_ssize_t i = 0; i < length; i++) {
        PyObject *pair = PySequence_GetItem(sequence, i);
        const char *name = NULL, *value = NULL;
        Py_ssize_t name_length = 0, value_length = 0;
        int parsed = pair != NULL && PyTuple_Check(pair) &&
                     PyArg_ParseTuple(pair, "y#y#", &name, &name_length, &value, &value_length);
        Py_XDECREF(pair);
        if (!parsed) {
            if (!PyErr_Occurred())
                PyErr_SetString(PyExc_TypeError, "fields must be pairs of bytes");
            return -1;
        }
        out[i] = (struct wire_field){name, (size_t)name_length, value, (size_t)value_length};
    }
    *count = (size_t)length;
    return 0;
}

static PyObject *client_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *keywords[] = {"hosts",      "port",       "fields",      "sent",
                               "blocked",    "stop",       "connections", "in_flight",
                               "timeout_ns", "compressed", "tls",         NULL};
    PyObject *hosts, *fields, *sent, *blocked, *stop;
    const char *port;
    long connections, in_flight;
    long long timeout;
    int compressed = 0;
    PyObject *encrypted = Py_None;
    struct wire_tls_options tls = {0};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!sO!OOOllL|pO:Client", keywords, &PyTuple_Type,
                                     &hosts, &port, &PyTuple_Type, &fields, &sent, &blocked, &stop,
                                     &connections, &in_flight, &timeout, &compressed, &encrypted))
        return NULL;
    if (connections < 1 || connections > WIRE_MAX_CONNECTIONS)
        return PyErr_Format(PyExc_ValueError, "connections is %ld, not 1 to %d", connections,
                            WIRE_MAX_CONNECTIONS);
    if (in_flight < 1 || in_flight > WIRE_MAX_IN_FLIGHT)
        return PyErr_Format(PyExc_ValueError, "in_flight is %ld, not 1 to %d", in_flight,
                            WIRE_MAX_IN_FLIGHT);
    if (timeout < 1)
        return PyErr_Format(PyExc_ValueError, "timeout_ns is %lld, not positive", timeout);

    if (encrypted != Py_None) {
        int verify;
        if (!PyTuple_Check(encrypted)) {
            PyErr_SetString(PyExc_TypeError, "tls is not a tuple");
            return NULL;
        }
        if (!PyArg_ParseTuple(encrypted, "szzzp:tls", &tls.host, &tls.ca, &tls.certificate,
                              &tls.key, &verify))
            return NULL;
        tls.verify = verify != 0;
    }
    struct wire_field list[FIELDS_MAX];
    const char *names[HOSTS_MAX];
    char error[160];
    struct wire_client_options options = {
        .hosts = names,
        .port = port,
        .connections = (uint32_t)connections,
        .in_flight = (uint32_t)in_flight,
        .timeout = timeout,
        .compressed = compressed != 0,
        .tls = encrypted != Py_None ? &tls : NULL,
        .fields = list,
    };
    Py_ssize_t host_count = PyTuple_Size(hosts);
    if (host_count < 1 || host_count > HOSTS_MAX)
        return PyErr_Format(PyExc_ValueError, "%zd hosts, not 1 to %d", host_count, HOSTS_MAX);
    for (Py_ssize_t i = 0; i < host_count; i++) {
        names[i] = PyUnicode_AsUTF8AndSize(PyTuple_GetItem(hosts, i), NULL);
        if (names[i] == NULL)
            return NULL;
    }
    options.host_count = (size_t)host_count;
    if (get_fields(fields, list, &options.field_count) < 0)
        return NULL;

    allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    ClientObject *self = (ClientObject *)alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->sources = PyList_New(0);
    if (self->sources == NULL)
        goto fail;
    if (get_int64(sent, &self->sent, WIRE_SENT_COUNT, PyBUF_WRITABLE, "sent") < 0 ||
        get_int64(blocked, &self->blocked, WIRE_BLOCKED_COUNT, PyBUF_WRITABLE, "blocked") < 0 ||
        get_int64(stop, &self->stop, 1, 0, "stop") < 0)
        goto fail;
    options.sent = self->sent.buf;
    options.blocked = self->blocked.buf;
    options.stop = self->stop.buf;
    self->client = wire_client_new(&options, error, sizeof error);
    if (self->client == NULL) {
        if (error[0])
            PyErr_SetString(PyExc_ValueError, error);
        else
            PyErr_NoMemory();
        goto fail;
    }
    return (PyObject *)self;
fail:
    Py_DECREF(self);
    return NULL;
}

static void client_dealloc(ClientObject *self) {
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    if (self->client != NULL)
        wire_client_free(self->client);
    while (self->views != NULL)
        free_view(self, self->views);
    Py_XDECREF(self->sources);
    if (self->sent.obj != NULL)
        PyBuffer_Release(&self->sent);
    if (self->blocked.obj != NULL)
        PyBuffer_Release(&self->blocked);
    if (self->stop.obj != NULL)
        PyBuffer_Release(&self->stop);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static PyMethodDef client_methods[] = {
    {"connect", (PyCFunction)client_connect, METH_O,
     "connect(until) -> None, or what the peer seems to be."},
    {"send", (PyCFunction)client_send, METH_VARARGS,
     "send(buffer or Batches.source, offsets, scheduled, spans, until, first, again) -> how many "
     "were offered."},
    {"wait", (PyCFunction)client_wait, METH_O, "wait(until): handles answers."},
    {"drain", (PyCFunction)client_drain, METH_O,
     "drain(until): handles answers until all requests have ended; abandons the rest."},
    {"close", (PyCFunction)client_close, METH_NOARGS, "close(): abandons what is in flight."},
    {"take", (PyCFunction)client_take, METH_NOARGS,
     "take() -> the outcomes since the last call, as bytes."},
    {"messages", (PyCFunction)client_messages, METH_NOARGS,
     "messages() -> {status: the first message that came with it}."},
    {"in_flight", (PyCFunction)client_in_flight, METH_NOARGS,
     "in_flight() -> requests offered and not ended."},
    {"holds", (PyCFunction)client_holds, METH_O,
     "holds(buffer) -> whether requests still need its bytes."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot client_slots[] = {
    {Py_tp_doc, "Sends OTLP batches over HTTP/2, each at its scheduled time."},
    {Py_tp_new, (void *)client_new},
    {Py_tp_dealloc, (void *)client_dealloc},
    {Py_tp_methods, client_methods},
    {0, NULL},
};

PyType_Spec wire_client_type_spec = {
    .name = "blaster._wire.Client",
    .basicsize = sizeof(ClientObject),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = client_slots,
};
