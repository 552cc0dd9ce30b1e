#include "columns_type.h"

#include "arrays.h"

enum {
    CELL_FIELDS = 5,  /* entries' first row, length, extent, spans, variant */
    ENTRY_FIELDS = 3, /* step, start, end */
    ROWS_MAX = 1 << 28,
    TRACES_MAX = INT32_MAX,
};
#define NUMBERS_MAX ((int64_t)1 << 43)

static int read_entries(ColumnKernel *self, const int64_t *rows, Py_ssize_t count) {
    self->entries = PyMem_Calloc((size_t)count + 1, sizeof *self->entries);
    if (self->entries == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++, rows += ENTRY_FIELDS)
        self->entries[i] = (struct columns_entry){(uint64_t)rows[0], rows[1], rows[2]};
    return 0;
}

/* Every row is checked here, once, so that filling needs no checks. */
static int read_cells(ColumnKernel *self, const int64_t *rows, Py_ssize_t count,
                      Py_ssize_t entries) {
    self->cells = PyMem_Calloc((size_t)count + 1, sizeof *self->cells);
    if (self->cells == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++, rows += CELL_FIELDS) {
        if (rows[0] < 0 || rows[1] < 0 || rows[1] > entries || rows[0] > entries - rows[1] ||
            rows[3] < 0 || rows[3] > ROWS_MAX || rows[4] < 0 || rows[4] > UINT16_MAX) {
            PyErr_Format(PyExc_ValueError, "cell %zd does not fit %zd entries", i, entries);
            return -1;
        }
        self->cell_count++;
        self->cells[i] = (struct columns_part){
            self->entries + rows[0], rows[1], rows[2], rows[3], (uint16_t)rows[4],
        };
    }
    return 0;
}

/* Cuts the cells into the cycles that follow one another. */
static int read_cycles(ColumnKernel *self, PyObject *lengths, Py_ssize_t cells) {
    struct columns_mix *kernel = &self->kernel;
    const Py_ssize_t count = PyTuple_Size(lengths);
    if (count < 0)
        return -1;
    if (count != COLUMNS_MAX_CYCLES && (count != 1 || kernel->share > 0)) {
        PyErr_Format(PyExc_ValueError, "%zd cycles: one, and one for each kind of violation",
                     count);
        return -1;
    }
    kernel->cycle_count = (size_t)count;
    const struct columns_part *next = self->cells;
    Py_ssize_t left = cells / (Py_ssize_t)kernel->parts;
    for (Py_ssize_t i = 0; i < count; i++) {
        const Py_ssize_t length = PyLong_AsSsize_t(PyTuple_GetItem(lengths, i));
        if (length == -1 && PyErr_Occurred())
            return -1;
        if (length < 1 || length > left) {
            PyErr_Format(PyExc_ValueError, "cycle %zd of %zd cells: there are %zd", i, length,
                         left);
            return -1;
        }
        kernel->cycles[i] = (struct columns_cycle){next, (uint64_t)length};
        next += (size_t)length * kernel->parts;
        left -= length;
    }
    return 0;
}

static PyObject *kernel_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"odd_trace", "span_step", "share",   "of", "cycles",
                            "parts",     "cells",     "entries", NULL};
    unsigned long long odd_trace, span_step;
    long long share, of;
    Py_ssize_t parts, cell_items, entry_items;
    PyObject *cycles, *cells, *entries;
    struct arrays arrays = {.count = 0};
    ColumnKernel *self = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "KKLLO!nOO:ColumnKernel", names, &odd_trace,
                                     &span_step, &share, &of, &PyTuple_Type, &cycles, &parts,
                                     &cells, &entries))
        return NULL;
    if (of < 1 || of > 1 << 20 || share < 0 || share > of)
        return PyErr_Format(PyExc_ValueError, "share %lld of %lld: 0 to 1, of at most 2^20", share,
                            of);
    if (parts < 1 || parts > ROWS_MAX)
        return PyErr_Format(PyExc_ValueError, "%zd parts: at least 1", parts);
    const int64_t *cell_rows = arrays_take(&arrays, cells, 8, 0, &cell_items);
    const int64_t *entry_rows =
        cell_rows ? arrays_take(&arrays, entries, 8, 0, &entry_items) : NULL;
    if (entry_rows == NULL)
        goto fail;
    allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    self = (ColumnKernel *)alloc(type, 0);
    if (self == NULL)
        goto fail;
    self->kernel.odd_trace = odd_trace;
    self->kernel.span_step = span_step;
    self->kernel.share = (uint64_t)share;
    self->kernel.of = (uint64_t)of;
    self->kernel.parts = (size_t)parts;
    if (read_entries(self, entry_rows, entry_items / ENTRY_FIELDS) < 0 ||
        read_cells(self, cell_rows, cell_items / CELL_FIELDS, entry_items / ENTRY_FIELDS) < 0 ||
        read_cycles(self, cycles, cell_items / CELL_FIELDS) < 0)
        goto fail;
    arrays_release(&arrays);
    return (PyObject *)self;
fail:
    arrays_release(&arrays);
    Py_XDECREF((PyObject *)self);
    return NULL;
}

static void kernel_dealloc(ColumnKernel *self) {
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    PyMem_Free(self->cells);
    PyMem_Free(self->entries);
    freefunc tp_free = (freefunc)PyType_GetSlot(type, Py_tp_free);
    tp_free(self);
    Py_DECREF(type);
}

int columns_check(const ColumnKernel *self, struct columns_rows *rows) {
    rows->traces = 0;
    for (size_t i = 0; i < rows->count; i++) {
        const int64_t count = rows->counts[i], part = rows->parts[i], quota = rows->quota[i];
        if (count < 0 || (uint64_t)count > TRACES_MAX - rows->traces) {
            PyErr_SetString(PyExc_ValueError, "counts: from 0 on, and at most 2147483647 in all");
            return -1;
        }
        if (part < 0 || (size_t)part >= self->kernel.parts) {
            PyErr_Format(PyExc_ValueError, "part %lld: there are %zu", (long long)part,
                         self->kernel.parts);
            return -1;
        }
        if (quota < 0 || quota > NUMBERS_MAX - count) {
            PyErr_Format(PyExc_ValueError, "trace %lld: numbers are 0 to 2^43", (long long)quota);
            return -1;
        }
        rows->traces += (size_t)count;
    }
    return 0;
}

int columns_take(struct arrays *arrays, PyObject *const *objects, size_t count, const int64_t **out,
                 size_t *rows) {
    for (size_t i = 0; i < count; i++) {
        Py_ssize_t items;
        out[i] = arrays_take(arrays, objects[i], 8, 0, &items);
        if (out[i] == NULL)
            return -1;
        if (i > 0 && (size_t)items != *rows) {
            PyErr_SetString(PyExc_ValueError, "the arrays of batches must have one length");
            return -1;
        }
        *rows = (size_t)items;
    }
    return 0;
}

/* Quota, counts and parts of batches; of what else they are nothing is asked. */
static int take_numbers(const ColumnKernel *self, struct arrays *arrays, PyObject *const *objects,
                        struct columns_rows *rows) {
    const int64_t *taken[3];
    if (columns_take(arrays, objects, 3, taken, &rows->count) < 0)
        return -1;
    rows->first = rows->ended = rows->quota = taken[0];
    rows->counts = taken[1], rows->parts = taken[2];
    return columns_check(self, rows);
}

static PyObject *kernel_entries(ColumnKernel *self, PyObject *args) {
    PyObject *objects[3], *result = NULL;
    struct arrays arrays = {.count = 0};
    struct columns_rows rows = {0};
    if (!PyArg_ParseTuple(args, "OOO:entries", &objects[0], &objects[1], &objects[2]))
        return NULL;
    if (take_numbers(self, &arrays, objects, &rows) < 0)
        goto done;
    int64_t entries = 0;
    Py_BEGIN_ALLOW_THREADS;
    for (size_t i = 0; i < rows.count; i++) {
        const struct columns_batch batch = columns_row(&rows, i);
        entries += columns_totals(&self->kernel, &batch).entries;
    }
    Py_END_ALLOW_THREADS;
    result = PyLong_FromLongLong(entries);
done:
    arrays_release(&arrays);
    return result;
}

static PyObject *kernel_variants(ColumnKernel *self, PyObject *args) {
    PyObject *objects[3], *out_object, *result = NULL;
    struct arrays arrays = {.count = 0};
    struct columns_rows rows = {0};
    Py_ssize_t room;
    if (!PyArg_ParseTuple(args, "OOOO:variants", &objects[0], &objects[1], &objects[2],
                          &out_object))
        return NULL;
    if (take_numbers(self, &arrays, objects, &rows) < 0)
        goto done;
    uint16_t *out = arrays_take(&arrays, out_object, 2, PyBUF_WRITABLE, &room);
    if (out == NULL)
        goto done;
    if ((size_t)room < rows.traces) {
        PyErr_Format(PyExc_ValueError, "variants: %zd rows for %zu traces", room, rows.traces);
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS;
    for (size_t i = 0; i < rows.count; i++) {
        const struct columns_batch batch = columns_row(&rows, i);
        columns_variants(&self->kernel, &batch, out);
        out += batch.count;
    }
    Py_END_ALLOW_THREADS;
    result = Py_NewRef(Py_None);
done:
    arrays_release(&arrays);
    return result;
}

static PyObject *kernel_fill(ColumnKernel *self, PyObject *args) {
    PyObject *in[5], *columns[5], *variants, *spans, *result = NULL;
    const int64_t *rows[5];
    void *places[5];
    Py_ssize_t items[5], variant_items, span_items;
    struct arrays arrays = {.count = 0};
    struct columns_rows batches = {0};
    if (!PyArg_ParseTuple(args, "OOOOOOOOOOOO:fill", &in[0], &in[1], &in[2], &in[3], &in[4],
                          &columns[0], &columns[1], &columns[2], &columns[3], &columns[4],
                          &variants, &spans))
        return NULL;
    if (columns_take(&arrays, in, 5, rows, &batches.count) < 0)
        goto done;
    batches.first = rows[0], batches.counts = rows[1], batches.parts = rows[2];
    batches.quota = rows[3], batches.ended = rows[4];
    if (columns_check(self, &batches) < 0)
        goto done;
    for (size_t i = 0; i < 5; i++)
        if ((places[i] = arrays_take(&arrays, columns[i], 8, PyBUF_WRITABLE, &items[i])) == NULL)
            goto done;
    uint16_t *numbers = arrays_take(&arrays, variants, 2, PyBUF_WRITABLE, &variant_items);
    int64_t *sums = numbers ? arrays_take(&arrays, spans, 8, PyBUF_WRITABLE, &span_items) : NULL;
    if (sums == NULL)
        goto done;
    if ((size_t)items[0] < batches.traces || (size_t)items[1] < batches.traces ||
        (size_t)variant_items < batches.traces || (size_t)span_items < batches.count ||
        items[3] < items[2] || items[4] < items[2]) {
        PyErr_SetString(PyExc_ValueError, "the columns have too few rows");
        goto done;
    }
    struct columns_out out = {places[0], places[1], numbers, places[2],
                              places[3], places[4], items[2]};
    int fits = 1;
    Py_BEGIN_ALLOW_THREADS;
    for (size_t i = 0; i < batches.count && fits; i++) {
        const struct columns_batch batch = columns_row(&batches, i);
        sums[i] = columns_fill(&self->kernel, &batch, &out);
        fits = sums[i] >= 0;
    }
    Py_END_ALLOW_THREADS;
    if (fits)
        result = PyLong_FromLongLong(items[2] - out.room);
    else
        PyErr_Format(PyExc_ValueError, "%zd rows do not hold the entries", items[2]);
done:
    arrays_release(&arrays);
    return result;
}

static PyMethodDef kernel_methods[] = {
    {"entries", (PyCFunction)kernel_entries, METH_VARARGS,
     "entries(quota, counts, parts, /) -> the rows of entries that the batches take."},
    {"variants", (PyCFunction)kernel_variants, METH_VARARGS,
     "variants(quota, counts, parts, out, /): the variants that the batches' traces take."},
    {"fill", (PyCFunction)kernel_fill, METH_VARARGS,
     "fill(first, counts, parts, quota, ended, high, low, span_ids, starts, ends, variants, spans, "
     "/)\n\nFills the columns and returns the rows of entries."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot kernel_slots[] = {
    {Py_tp_doc, "ColumnKernel(odd_trace, span_step, share, of, cycles, parts, cells, entries)\n\n"
                "Makes the IDs and times of traces by their numbers."},
    {Py_tp_new, (void *)kernel_new},
    {Py_tp_dealloc, (void *)kernel_dealloc},
    {Py_tp_methods, kernel_methods},
    {0, NULL},
};

PyType_Spec columns_type_spec = {
    .name = "blaster._native.ColumnKernel",
    .basicsize = sizeof(ColumnKernel),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = kernel_slots,
};
