#include "batches_type.h"

#include <stdbool.h>

#include "arrays.h"
#include "batch_source.h"
#include "batches.h"
#include "columns_type.h"
#include "template_type.h"

typedef struct {
    PyObject_HEAD struct batches kernel;
    ColumnKernel *columns;
    Template *template;
    size_t longest;     /* the most entries of a trace */
    int64_t spans_each; /* of every trace's part; -1: they differ */
    void *room;         /* of the columns of one batch */
    size_t room_traces;
    struct arrays arrays; /* what is to be made: held until the next begin */
    struct batch_source source;
    bool busy; /* a call runs without the GIL, or a client sends from it */
} Batches;

/* What the variant takes of each column is what the part of a cell makes. */
static int check_part(const Template *template, const struct columns_part *part) {
    if (part->variant >= template->kernel.variant_count) {
        PyErr_Format(PyExc_ValueError, "variant %d: there are %zu", part->variant,
                     template->kernel.variant_count);
        return -1;
    }
    const size_t *strides = template->kernel.variants[part->variant].strides;
    const size_t entries = 8 * (size_t)part->length;
    if (strides[BATCHES_HIGH] > 8 || strides[BATCHES_LOW] > 8 ||
        strides[BATCHES_SPAN_ID] != entries || strides[BATCHES_START] != entries ||
        strides[BATCHES_END] != entries) {
        PyErr_Format(PyExc_ValueError, "variant %d takes other columns than are made",
                     part->variant);
        return -1;
    }
    return 0;
}

static int read_parts(Batches *self) {
    const ColumnKernel *columns = self->columns;
    const Template *template = self->template;
    if (template->kernel.column_count != BATCHES_COLUMNS) {
        PyErr_Format(PyExc_ValueError, "the template takes %zu columns, not %d",
                     template->kernel.column_count, BATCHES_COLUMNS);
        return -1;
    }
    self->spans_each = columns->cells[0].spans;
    for (size_t i = 0; i < columns->cell_count; i++) {
        const struct columns_part *part = &columns->cells[i];
        if (check_part(template, part) < 0)
            return -1;
        if ((size_t)part->length > self->longest)
            self->longest = (size_t)part->length;
        if (part->spans != self->spans_each)
            self->spans_each = -1;
        if (template->kernel.variants[part->variant].strides[BATCHES_DIGITS] > 0)
            self->kernel.draws = true;
    }
    return 0;
}

static bool source_acquire(void *context) {
    Batches *self = context;
    const bool idle = !self->busy;
    self->busy = true;
    return idle;
}

static void source_release(void *context) { ((Batches *)context)->busy = false; }

static size_t source_left(void *context) {
    const Batches *self = context;
    return self->kernel.rows.count - self->kernel.next;
}

static size_t source_length(void *context) { return batches_length(&((Batches *)context)->kernel); }

static size_t source_recipe_length(void *context) {
    return batches_recipe_length(&((Batches *)context)->kernel);
}

static void source_write(void *context, uint8_t *out, void *recipe) {
    batches_write(&((Batches *)context)->kernel, out, recipe);
}

static void source_write_again(void *context, const void *recipe, uint8_t *out) {
    batches_write_again(&((Batches *)context)->kernel, recipe, out);
}

/* The object's arguments must be of the module's own types. */
static int take_type(PyObject *module, const char *name, PyObject *object) {
    PyObject *type = PyObject_GetAttrString(module, name);
    if (type == NULL)
        return -1;
    const int is = PyObject_TypeCheck(object, (PyTypeObject *)type);
    Py_DECREF(type);
    if (!is)
        PyErr_Format(PyExc_TypeError, "not a %s", name);
    return is ? 0 : -1;
}

static PyObject *batches_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"columns", "template", NULL};
    PyObject *columns, *template;
    PyObject *module = PyType_GetModule(type);
    if (module == NULL ||
        !PyArg_ParseTupleAndKeywords(args, kwargs, "OO:Batches", names, &columns, &template) ||
        take_type(module, "ColumnKernel", columns) < 0 ||
        take_type(module, "Template", template) < 0)
        return NULL;
    allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Batches *self = (Batches *)alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->columns = (ColumnKernel *)Py_NewRef(columns);
    self->template = (Template *)Py_NewRef(template);
    self->kernel.mix = &self->columns->kernel;
    self->kernel.template = &self->template->kernel;
    self->source = (struct batch_source){
        .context = self,
        .acquire = source_acquire,
        .release = source_release,
        .left = source_left,
        .length = source_length,
        .recipe_length = source_recipe_length,
        .write = source_write,
        .write_again = source_write_again,
    };
    if (read_parts(self) < 0) {
        Py_DECREF((PyObject *)self);
        return NULL;
    }
    return (PyObject *)self;
}

static void batches_dealloc(Batches *self) {
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    arrays_release(&self->arrays);
    PyMem_Free(self->room);
    Py_XDECREF((PyObject *)self->columns);
    Py_XDECREF((PyObject *)self->template);
    freefunc tp_free = (freefunc)PyType_GetSlot(type, Py_tp_free);
    tp_free(self);
    Py_DECREF(type);
}

static int idle(const Batches *self) {
    if (!self->busy)
        return 0;
    PyErr_SetString(PyExc_RuntimeError, "the batches are in use by another thread");
    return -1;
}

/* Room for the columns of so many traces. */
static int reserve(Batches *self, size_t traces) {
    enum { TRACE_BYTES = 2 * sizeof(uint64_t) + sizeof(uint16_t), ENTRY_BYTES = 24 };
    if (self->room != NULL && traces <= self->room_traces)
        return 0;
    if (traces > PY_SSIZE_T_MAX / (TRACE_BYTES + ENTRY_BYTES * (self->longest + 1))) {
        PyErr_NoMemory();
        return -1;
    }
    const size_t entries = traces * self->longest;
    uint64_t *room = PyMem_Realloc(self->room, traces * TRACE_BYTES + entries * ENTRY_BYTES + 1);
    if (room == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    self->room = room;
    self->room_traces = traces;
    self->kernel.room = (struct columns_out){
        .high = room,
        .low = room + traces,
        .span_ids = room + 2 * traces,
        .starts = (int64_t *)(room + 2 * traces + entries),
        .ends = (int64_t *)(room + 2 * traces + 2 * entries),
        .variants = (uint16_t *)(room + 2 * traces + 3 * entries),
        .room = (int64_t)entries,
    };
    return 0;
}

/* The spans of each batch; and the digits that they take altogether. */
static size_t count_up(Batches *self, int64_t *spans) {
    const struct columns_rows *rows = &self->kernel.rows;
    const struct stamp_variant *variants = self->kernel.template->variants;
    size_t digits = 0;
    for (size_t i = 0; i < rows->count; i++) {
        const struct columns_batch batch = columns_row(rows, i);
        if (self->spans_each >= 0)
            spans[i] = self->spans_each * rows->counts[i];
        else
            spans[i] = columns_totals(self->kernel.mix, &batch).spans;
        if (!self->kernel.draws)
            continue;
        columns_variants(self->kernel.mix, &batch, self->kernel.room.variants);
        for (size_t t = 0; t < batch.count; t++)
            digits += variants[self->kernel.room.variants[t]].strides[BATCHES_DIGITS];
    }
    return digits;
}

static PyObject *batches_begin(Batches *self, PyObject *args) {
    PyObject *in[5], *digits_object, *spans_object;
    const int64_t *taken[5];
    Py_ssize_t digit_words, span_items;
    struct batches *kernel = &self->kernel;
    struct columns_rows rows = {0};
    if (idle(self) < 0 || !PyArg_ParseTuple(args, "OOOOOOO:begin", &in[0], &in[1], &in[2], &in[3],
                                            &in[4], &digits_object, &spans_object))
        return NULL;
    kernel->rows = rows;
    kernel->next = 0;
    kernel->filled = false;
    arrays_release(&self->arrays);
    if (columns_take(&self->arrays, in, 5, taken, &rows.count) < 0)
        return NULL;
    rows.first = taken[0], rows.counts = taken[1], rows.parts = taken[2];
    rows.quota = taken[3], rows.ended = taken[4];
    const uint8_t *digits = arrays_take(&self->arrays, digits_object, 4, 0, &digit_words);
    if (digits == NULL || columns_check(self->columns, &rows) < 0)
        return NULL;
    int64_t *spans = arrays_take(&self->arrays, spans_object, 8, PyBUF_WRITABLE, &span_items);
    if (spans == NULL)
        return NULL;
    if ((size_t)span_items < rows.count)
        return PyErr_Format(PyExc_ValueError, "spans: %zd rows for %zu batches", span_items,
                            rows.count);
    int64_t most = 0;
    for (size_t i = 0; i < rows.count; i++)
        most = rows.counts[i] > most ? rows.counts[i] : most;
    if (reserve(self, (size_t)most) < 0)
        return NULL;
    kernel->rows = rows;
    const size_t needed = count_up(self, spans);
    if (4 * (size_t)digit_words < needed) {
        kernel->rows.count = 0;
        return PyErr_Format(PyExc_ValueError, "digits: %zu bytes, the traces take %zu",
                            4 * (size_t)digit_words, needed);
    }
    kernel->digits = digits;
    Py_RETURN_NONE;
}

static PyObject *batches_next(Batches *self) {
    struct batches *kernel = &self->kernel;
    if (idle(self) < 0 || kernel->next == kernel->rows.count)
        return NULL;
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)batches_length(kernel));
    if (bytes == NULL)
        return NULL;
    /* Nobody else has seen these bytes yet, so they may still be written to. */
    uint8_t *out = (uint8_t *)PyBytes_AsString(bytes);
    self->busy = true;
    Py_BEGIN_ALLOW_THREADS;
    batches_write(kernel, out, NULL);
    Py_END_ALLOW_THREADS;
    self->busy = false;
    return bytes;
}

static void capsule_release(PyObject *capsule) {
    Py_DECREF((PyObject *)PyCapsule_GetContext(capsule));
}

static PyObject *batches_source(Batches *self, void *Py_UNUSED(closure)) {
    PyObject *capsule = PyCapsule_New(&self->source, BATCH_SOURCE, capsule_release);
    if (capsule == NULL || PyCapsule_SetContext(capsule, self) < 0)
        return NULL;
    Py_INCREF((PyObject *)self);
    return capsule;
}

static PyMethodDef batches_methods[] = {
    {"begin", (PyCFunction)batches_begin, METH_VARARGS,
     "begin(first, counts, parts, quota, ended, digits, spans, /): these batches come next."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef batches_attributes[] = {
    {"source", (getter)batches_source, NULL, "What blaster._wire takes the batches from.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot batches_slots[] = {
    {Py_tp_doc, "Batches(columns, template)\n\n"
                "An iterator that makes each batch when it is asked for it."},
    {Py_tp_new, (void *)batches_new},
    {Py_tp_dealloc, (void *)batches_dealloc},
    {Py_tp_iter, (void *)PyObject_SelfIter},
    {Py_tp_iternext, (void *)batches_next},
    {Py_tp_methods, batches_methods},
    {Py_tp_getset, batches_attributes},
    {0, NULL},
};

PyType_Spec batches_type_spec = {
    .name = "blaster._native.Batches",
    .basicsize = sizeof(Batches),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = batches_slots,
};
