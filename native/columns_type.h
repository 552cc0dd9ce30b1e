/* The Python type blaster._native.ColumnKernel over the kernel in columns.h. */
#ifndef BLASTER_COLUMNS_TYPE_H
#define BLASTER_COLUMNS_TYPE_H

#include <Python.h>

#include "arrays.h"
#include "columns.h"

typedef struct {
    PyObject_HEAD struct columns_mix kernel;
    struct columns_part *cells;
    size_t cell_count; /* all parts of all cells */
    struct columns_entry *entries;
} ColumnKernel;

extern PyType_Spec columns_type_spec;

/* Takes one array of int64 for each of `count` objects, all of as many `rows`. -1: an exception. */
int columns_take(struct arrays *arrays, PyObject *const *objects, size_t count, const int64_t **out,
                 size_t *rows);

/* Checks counts, parts and quota, and adds up the traces. -1: an exception. */
int columns_check(const ColumnKernel *self, struct columns_rows *rows);

#endif
