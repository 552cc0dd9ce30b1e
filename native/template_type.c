#include "template_type.h"

#include <string.h>

#include "arrays.h"

enum { MAX_FRAMINGS = 65536, MAX_VARIANTS = 65536, MAX_SLOTS = 1 << 20 };

static int read_text(Template *self, PyObject *text, struct stamp_framing *framing) {
    PyObject *head, *tail;
    if (!PyArg_ParseTuple(text, "SS", &head, &tail))
        return -1;
    if (PyList_Append(self->keep, head) < 0 || PyList_Append(self->keep, tail) < 0)
        return -1;
    framing->head = (const uint8_t *)PyBytes_AsString(head);
    framing->head_length = (size_t)PyBytes_Size(head);
    framing->tail = (const uint8_t *)PyBytes_AsString(tail);
    framing->tail_length = (size_t)PyBytes_Size(tail);
    return 0;
}

static int read_framing(Template *self, PyObject *frames, struct stamp_framing *framing) {
    Py_ssize_t count = PyTuple_Size(frames);
    if (count < 0)
        return -1;
    if (count > 0 && PyBytes_Check(PyTuple_GetItem(frames, 0)))
        return read_text(self, frames, framing);
    if (count > STAMP_MAX_FRAMES) {
        PyErr_Format(PyExc_ValueError, "%zd frames: at most %d", count, STAMP_MAX_FRAMES);
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        int tag;
        PyObject *prefix;
        if (!PyArg_ParseTuple(PyTuple_GetItem(frames, i), "iS", &tag, &prefix))
            return -1;
        if (tag < 1 || tag > 127) {
            PyErr_Format(PyExc_ValueError, "tag %d: a one-byte tag is 1 to 127", tag);
            return -1;
        }
        if (PyList_Append(self->keep, prefix) < 0)
            return -1;
        framing->frames[i] = (struct stamp_frame){
            (uint8_t)tag, (const uint8_t *)PyBytes_AsString(prefix), (size_t)PyBytes_Size(prefix)};
    }
    framing->frame_count = (size_t)count;
    return 0;
}

static int read_framings(Template *self, PyObject *framings) {
    Py_ssize_t count = PyTuple_Size(framings);
    if (count < 0)
        return -1;
    if (count < 1 || count > MAX_FRAMINGS) {
        PyErr_Format(PyExc_ValueError, "%zd framings: 1 to %d", count, MAX_FRAMINGS);
        return -1;
    }
    self->framings = PyMem_Calloc((size_t)count, sizeof *self->framings);
    if (self->framings == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    self->kernel.framings = self->framings;
    self->kernel.framing_count = (size_t)count;
    for (Py_ssize_t i = 0; i < count; i++) {
        if (read_framing(self, PyTuple_GetItem(framings, i), &self->framings[i]) < 0)
            return -1;
    }
    return 0;
}

/* The first variant says how many columns there are. */
static int read_strides(Template *self, PyObject *strides, struct stamp_variant *variant) {
    Py_ssize_t count = PyTuple_Size(strides);
    if (count < 0)
        return -1;
    if (count > STAMP_MAX_COLUMNS) {
        PyErr_Format(PyExc_ValueError, "%zd columns: at most %d", count, STAMP_MAX_COLUMNS);
        return -1;
    }
    if (variant == self->variants)
        self->kernel.column_count = (size_t)count;
    if ((size_t)count != self->kernel.column_count) {
        PyErr_Format(PyExc_ValueError, "%zd strides: there are %zu columns", count,
                     self->kernel.column_count);
        return -1;
    }
    size_t *table = PyMem_Calloc((size_t)count + 1, sizeof *table);
    if (table == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    variant->strides = table;
    for (Py_ssize_t i = 0; i < count; i++) {
        table[i] = PyLong_AsSize_t(PyTuple_GetItem(strides, i));
        if (PyErr_Occurred())
            return -1;
        if (table[i] > UINT32_MAX) {
            PyErr_Format(PyExc_ValueError, "column %zd: a stride is 0 to 4294967295", i);
            return -1;
        }
    }
    return 0;
}

/* Every slot is checked here, once, so that stamping needs no checks. */
static int read_slot(const Template *self, const struct stamp_variant *variant, PyObject *item,
                     struct stamp_slot *slot) {
    unsigned int offset, width, column, shift;
    if (!PyArg_ParseTuple(item, "IIII", &offset, &width, &column, &shift))
        return -1;
    if (width > variant->length || offset > variant->length - width) {
        PyErr_Format(PyExc_ValueError, "slot at %u of width %u: the variant has %zu bytes", offset,
                     width, variant->length);
        return -1;
    }
    if (column >= self->kernel.column_count) {
        PyErr_Format(PyExc_ValueError, "slot of column %u: there are %zu", column,
                     self->kernel.column_count);
        return -1;
    }
    size_t stride = variant->strides[column];
    if (width > stride || shift > stride - width) {
        PyErr_Format(PyExc_ValueError, "slot with shift %u of width %u: column %u has stride %zu",
                     shift, width, column, stride);
        return -1;
    }
    *slot = (struct stamp_slot){offset, width, column, shift};
    return 0;
}

static int read_variant(Template *self, PyObject *item, struct stamp_variant *variant) {
    PyObject *data, *slots, *strides;
    unsigned int framing;
    if (!PyArg_ParseTuple(item, "SO!O!I", &data, &PyTuple_Type, &slots, &PyTuple_Type, &strides,
                          &framing))
        return -1;
    if (framing >= self->kernel.framing_count) {
        PyErr_Format(PyExc_ValueError, "framing %u: there are %zu", framing,
                     self->kernel.framing_count);
        return -1;
    }
    variant->framing = framing;
    if (read_strides(self, strides, variant) < 0)
        return -1;
    variant->length = (size_t)PyBytes_Size(data);
    uint8_t *copy = PyMem_Calloc(variant->length + STAMP_PADDING, 1);
    if (copy == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    memcpy(copy, PyBytes_AsString(data), variant->length);
    variant->data = copy;
    Py_ssize_t count = PyTuple_Size(slots);
    if (variant->length > UINT32_MAX || count > MAX_SLOTS) {
        PyErr_SetString(PyExc_ValueError, "the variant is too large");
        return -1;
    }
    struct stamp_slot *table = PyMem_Calloc((size_t)count + 1, sizeof *table);
    if (table == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    variant->slots = table;
    variant->slot_count = (size_t)count;
    for (Py_ssize_t i = 0; i < count; i++) {
        if (read_slot(self, variant, PyTuple_GetItem(slots, i), &table[i]) < 0)
            return -1;
    }
    return 0;
}

static int read_variants(Template *self, PyObject *variants) {
    Py_ssize_t count = PyTuple_Size(variants);
    if (count < 0)
        return -1;
    if (count < 1 || count > MAX_VARIANTS) {
        PyErr_Format(PyExc_ValueError, "%zd variants: 1 to %d", count, MAX_VARIANTS);
        return -1;
    }
    self->variants = PyMem_Calloc((size_t)count, sizeof *self->variants);
    if (self->variants == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    self->kernel.variants = self->variants;
    self->kernel.variant_count = (size_t)count;
    self->uniform = 1;
    for (Py_ssize_t i = 0; i < count; i++) {
        if (read_variant(self, PyTuple_GetItem(variants, i), &self->variants[i]) < 0)
            return -1;
        if (memcmp(self->variants[i].strides, self->variants[0].strides,
                   self->kernel.column_count * sizeof *self->variants[0].strides) != 0)
            self->uniform = 0;
    }
    return 0;
}

static PyObject *template_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"framings", "variants", NULL};
    PyObject *framings, *variants;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!O!:Template", names, &PyTuple_Type, &framings,
                                     &PyTuple_Type, &variants))
        return NULL;
    allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Template *self = (Template *)alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->keep = PyList_New(0);
    if (self->keep == NULL || read_framings(self, framings) < 0 ||
        read_variants(self, variants) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void template_dealloc(PyObject *object) {
    Template *self = (Template *)object;
    PyTypeObject *type = Py_TYPE(object);
    for (size_t i = 0; i < self->kernel.variant_count; i++) {
        PyMem_Free((void *)self->variants[i].slots);
        PyMem_Free((void *)self->variants[i].data);
        PyMem_Free((void *)self->variants[i].strides);
    }
    PyMem_Free(self->variants);
    PyMem_Free(self->framings);
    Py_XDECREF(self->keep);
    freefunc tp_free = (freefunc)PyType_GetSlot(type, Py_tp_free);
    tp_free(object);
    Py_DECREF(type);
}

/* The converted arguments of a stamping call. */
struct call {
    struct arrays arrays;
    struct stamp_cursors cursors;
    size_t needed[STAMP_MAX_COLUMNS]; /* bytes that the traces take of each column */
    const uint16_t *variants;         /* traces */
    const int64_t *counts;            /* batches: the traces of each */
    size_t traces;
    size_t batches;
};

_Static_assert(ARRAYS_MAX >= STAMP_MAX_COLUMNS + 4, "columns, variants, counts, out and offsets");

static int call_columns(const Template *self, struct call *call, PyObject *columns) {
    if (PyTuple_Size(columns) != (Py_ssize_t)self->kernel.column_count) {
        if (!PyErr_Occurred())
            PyErr_Format(PyExc_ValueError, "the template takes %zu columns",
                         self->kernel.column_count);
        return -1;
    }
    for (size_t i = 0; i < self->kernel.column_count; i++) {
        Py_ssize_t length;
        call->cursors.at[i] =
            arrays_bytes(&call->arrays, PyTuple_GetItem(columns, (Py_ssize_t)i), 0, &length);
        if (call->cursors.at[i] == NULL)
            return -1;
        if ((size_t)length < call->needed[i]) {
            PyErr_Format(PyExc_ValueError, "column %zu: %zd bytes, the traces' rows take %zu", i,
                         length, call->needed[i]);
            return -1;
        }
    }
    return 0;
}

/* Checks the variants and adds up what they take of each column. */
static int call_variants(const Template *self, struct call *call, PyObject *variants) {
    const struct stamp_template *kernel = &self->kernel;
    Py_ssize_t traces;
    call->variants = arrays_take(&call->arrays, variants, 2, 0, &traces);
    if (call->variants == NULL)
        return -1;
    call->traces = (size_t)traces;
    if (call->traces > INT32_MAX) {
        PyErr_SetString(PyExc_ValueError, "variants: more than 2147483647 traces");
        return -1;
    }
    uint16_t highest = 0; /* without a branch, so that it is vectorised */
    for (size_t i = 0; i < call->traces; i++)
        highest = call->variants[i] > highest ? call->variants[i] : highest;
    if (highest >= kernel->variant_count) {
        PyErr_Format(PyExc_ValueError, "variant %d: there are %zu", highest, kernel->variant_count);
        return -1;
    }
    if (self->uniform) {
        for (size_t c = 0; c < kernel->column_count; c++)
            call->needed[c] = call->traces * kernel->variants[0].strides[c];
        return 0;
    }
    size_t *times = PyMem_Calloc((size_t)highest + 1, sizeof *times);
    if (times == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (size_t i = 0; i < call->traces; i++)
        times[call->variants[i]]++;
    memset(call->needed, 0, sizeof call->needed);
    /* At most 2^31 traces of strides below 2^32: the sums fit into 64 bits. */
    for (size_t v = 0; v <= highest; v++) {
        for (size_t c = 0; c < kernel->column_count; c++)
            call->needed[c] += times[v] * kernel->variants[v].strides[c];
    }
    PyMem_Free(times);
    return 0;
}

static int call_counts(struct call *call) {
    size_t left = call->traces;
    for (size_t i = 0; i < call->batches; i++) {
        if (call->counts[i] < 0 || (uint64_t)call->counts[i] > left) {
            PyErr_SetString(PyExc_ValueError, "counts must add up to the number of variants");
            return -1;
        }
        left -= (size_t)call->counts[i];
    }
    if (left != 0) {
        PyErr_SetString(PyExc_ValueError, "counts must add up to the number of variants");
        return -1;
    }
    return 0;
}

static int call_convert(const Template *self, struct call *call, PyObject *columns,
                        PyObject *variants, PyObject *counts) {
    Py_ssize_t batches;
    if (call_variants(self, call, variants) < 0)
        return -1;
    call->counts = arrays_take(&call->arrays, counts, 8, 0, &batches);
    if (call->counts == NULL)
        return -1;
    call->batches = (size_t)batches;
    return call_counts(call) < 0 ? -1 : call_columns(self, call, columns);
}

PyDoc_STRVAR(stamp_into_doc, "stamp_into(columns, variants, counts, out, offsets, /) -> int");

static PyObject *template_stamp_into(Template *self, PyObject *args) {
    PyObject *columns, *variants, *counts, *out_object, *offsets_object, *result = NULL;
    Py_ssize_t room, rows;
    struct call call;
    call.arrays.count = 0;
    if (!PyArg_ParseTuple(args, "O!OOOO:stamp_into", &PyTuple_Type, &columns, &variants, &counts,
                          &out_object, &offsets_object))
        return NULL;
    if (call_convert(self, &call, columns, variants, counts) < 0)
        goto done;
    uint8_t *out = arrays_bytes(&call.arrays, out_object, PyBUF_WRITABLE, &room);
    int64_t *table =
        out ? arrays_take(&call.arrays, offsets_object, 8, PyBUF_WRITABLE, &rows) : NULL;
    if (table == NULL)
        goto done;
    if ((size_t)rows < call.batches + 1) {
        PyErr_SetString(PyExc_ValueError, "offsets must be one more than there are batches");
        goto done;
    }
    int fits = 1;
    Py_BEGIN_ALLOW_THREADS;
    size_t total = 0, first = 0;
    for (size_t i = 0; i < call.batches && fits; i++) {
        size_t traces = (size_t)call.counts[i];
        table[i] = (int64_t)total;
        size_t inner = stamp_traces_length(&self->kernel, call.variants + first, traces);
        size_t length = stamp_batch_length(&self->kernel, call.variants + first, traces, inner);
        if (length > (size_t)room - total) {
            fits = 0;
            break;
        }
        stamp_batch(&self->kernel, &call.cursors, call.variants + first, traces, inner,
                    out + total);
        total += length;
        first += traces;
    }
    table[call.batches] = (int64_t)total;
    Py_END_ALLOW_THREADS;
    if (!fits)
        PyErr_Format(PyExc_ValueError, "out: %zd bytes do not hold the batches", room);
    else
        result = PyLong_FromLongLong(table[call.batches]);
done:
    arrays_release(&call.arrays);
    return result;
}

static PyMethodDef template_methods[] = {
    {"stamp_into", (PyCFunction)template_stamp_into, METH_VARARGS, stamp_into_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(
    template_doc,
    "Template(framings, variants)\n\n"
    "Prebuilt bytes and the places in them to patch.\n\n"
    "framings: tuple of tuples of (tag, prefix bytes), outermost first, or of (head bytes, tail\n"
    "bytes) of a text; variants: tuple of\n"
    "(bytes, tuple of (offset, width, column, shift), strides, framing), where strides is a\n"
    "tuple of the bytes that the trace takes of each column.");

static PyType_Slot template_slots[] = {
    {Py_tp_new, (void *)template_new},
    {Py_tp_dealloc, (void *)template_dealloc},
    {Py_tp_methods, template_methods},
    {Py_tp_doc, (void *)template_doc},
    {0, NULL},
};

PyType_Spec template_type_spec = {
    .name = "blaster._native.Template",
    .basicsize = sizeof(Template),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = template_slots,
};
