/* Variable-length integers of the protobuf wire format: seven bits a byte, the lowest first. */
#ifndef BLASTER_VARINT_H
#define BLASTER_VARINT_H

#include <stddef.h>
#include <stdint.h>

static inline size_t varint_length(uint64_t value) {
    size_t length = 1;
    for (; value >= 0x80; value >>= 7)
        length++;
    return length;
}

/* Writes at most ten bytes and returns where they end. */
static inline uint8_t *varint_write(uint8_t *out, uint64_t value) {
    for (; value >= 0x80; value >>= 7)
        *out++ = (uint8_t)(value | 0x80);
    *out++ = (uint8_t)value;
    return out;
}

/* Reads from [p, end) and returns where it stopped; NULL when that is within the number, or when
 * it is longer than ten bytes. Bits past the 64th are dropped, as protobuf drops them. */
static inline const uint8_t *varint_read(const uint8_t *p, const uint8_t *end, uint64_t *value) {
    uint64_t sum = 0;
    for (unsigned shift = 0; shift < 70 && p < end; shift += 7) {
        const uint8_t byte = *p++;
        sum |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            *value = sum;
            return p;
        }
    }
    return NULL;
}

#endif
