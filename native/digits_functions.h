/* The Python functions blaster._native.hex_digits and decimal_digits over the kernel in digits.h.
 */
#ifndef BLASTER_DIGITS_FUNCTIONS_H
#define BLASTER_DIGITS_FUNCTIONS_H

#include <Python.h>

extern PyMethodDef digits_functions[];

#endif
