#include "digits_functions.h"

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
    Py_buffer view;
    PyObject *result = NULL;
    if (PyObject_GetBuffer(object, &view, PyBUF_C_CONTIGUOUS) < 0)
        return NULL;
    if (view.itemsize != sizeof(uint64_t) || (uintptr_t)view.buf % sizeof(uint64_t) != 0) {
        PyErr_SetString(PyExc_TypeError, "words must be of 64 bits");
        goto done;
    }
    Py_ssize_t count = view.len / (Py_ssize_t)sizeof(uint64_t);
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
    fits = digits_decimal(view.buf, (size_t)count, out);
    Py_END_ALLOW_THREADS;
    if (!fits) {
        Py_CLEAR(result);
        PyErr_Format(PyExc_ValueError, "a word of more than %d decimal digits", DIGITS_DECIMAL);
    }
done:
    PyBuffer_Release(&view);
    return result;
}

PyDoc_STRVAR(hex_digits_doc, "hex_digits(data, /) -> bytes");
PyDoc_STRVAR(decimal_digits_doc, "decimal_digits(words, /) -> bytes");

PyMethodDef digits_functions[] = {
    {"hex_digits", hex_digits, METH_O, hex_digits_doc},
    {"decimal_digits", decimal_digits, METH_O, decimal_digits_doc},
    {NULL, NULL, 0, NULL},
};
