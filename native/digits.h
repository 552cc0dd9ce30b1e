/* Numbers as the digits that stand for them in OTLP's JSON.
 *
 * Knows nothing of Python, allocates nothing, has no globals that change.
 */
#ifndef BLASTER_DIGITS_H
#define BLASTER_DIGITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { DIGITS_DECIMAL = 19 }; /* as many as nanoseconds since 1970 have from 2001 to 2286 */

/* Two hexadecimal digits for each byte. */
void digits_hex(const uint8_t *bytes, size_t count, uint8_t *out);

/* DIGITS_DECIMAL decimal digits for each word; false where one has more. */
bool digits_decimal(const uint64_t *words, size_t count, uint8_t *out);

#endif
