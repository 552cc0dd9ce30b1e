#include "digits_functions.h"

#include "arrays.h"
#include "digits.h"

static PyObject *hex_digits(PyObject *module, PyObject *object) {
    (void)module;
    Py_buffer view;
    if (PyObject_GetBuffer(object, &view, PyBUF_C_CONTIGUOUS) < 0)
        return NULL;
    PyObject *result = NULL;
    if (view.len > PY_SSIZE_T_MAX / 2)
        PyErr_NoMemory();
    else
        result = PyBytes_FromStringAndSize(NULL, 2 * view.len);
    if (result != NULL) {
        uint8_t *out = (uint8_t *)PyBytes_AsString(result);
        Py_BEGIN_ALLOW_THREADS;
        digits_hex(view.buf, (size_t)view.len, out);
        Py_END_ALLOW_THREADS;
    }
    PyBuffer_Release(&view);
    return result;
}

static PyObject *decimal_digits(PyObject *module, PyObject *object) {
    (void)module;
    struct arrays arrays = {.count = 0};
    PyObject *result = NULL;
    Py_ssize_t count;
    const uint64_t *words = arrays_take(&arrays, object, 8, 0, &count);
    if (words == NULL)
        goto done;
    if (count > PY_SSIZE_T_MAX / DIGITS_DECIMAL) {
        PyErr_NoMemory();
        goto done;
    }
    result = PyBytes_FromStringAndSize(NULL, count * DIGITS_DECIMAL);
    if (result == NULL)
        goto done;
    uint8_t *out = (uint8_t *)PyBytes_AsString(result);
    bool fits;
    Py_BEGIN_ALLOW_THREADS;
    fits = digits_decimal(words, (size_t)count, out);
    Py_END_ALLOW_THREADS;
    if (!fits) {
        Py_CLEAR(result);
        PyErr_Format(PyExc_ValueError, "a word of more than %d decimal digits", DIGITS_DECIMAL);
    }
done:
    arrays_release(&arrays);
    return result;
}

PyDoc_STRVAR(hex_digits_doc, "hex_digits(data, /) -> bytes");
PyDoc_STRVAR(decimal_digits_doc, "decimal_digits(words, /) -> bytes");

PyMethodDef digits_functions[] = {
    {"hex_digits", hex_digits, METH_O, hex_digits_doc},
    {"decimal_digits", decimal_digits, METH_O, decimal_digits_doc},
    {NULL, NULL, 0, NULL},
};
