/* Whether bytes are UTF-8 (RFC 3629): what proto3 asks of every string. */
#ifndef BLASTER_UTF8_H
#define BLASTER_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define UTF8_HIGH_BITS UINT64_C(0x8080808080808080)

static inline uint64_t utf8_load(const uint8_t *p, size_t size) {
    uint64_t word = 0;
    memcpy(&word, p, size);
    return word;
}

/* Eight bytes at a time; the last eight overlap those before. */
static inline bool utf8_is_ascii(const uint8_t *p, size_t size) {
    uint64_t bits = 0;
    if (size >= 8) {
        const uint8_t *last = p + size - 8;
        for (; p < last; p += 8)
            bits |= utf8_load(p, 8);
        bits |= utf8_load(last, 8);
    } else if (size >= 4) {
        bits = utf8_load(p, 4) | utf8_load(p + size - 4, 4);
    } else {
        for (size_t i = 0; i < size; i++)
            bits |= p[i];
    }
    return (bits & UTF8_HIGH_BITS) == 0;
}

static inline bool utf8_is_valid_slowly(const uint8_t *p, size_t size) {
    const uint8_t *end = p + size;
    while (p < end) {
        while (end - p >= 8 && (utf8_load(p, 8) & UTF8_HIGH_BITS) == 0)
            p += 8;
        if (p == end)
            return true;
        const uint8_t lead = *p++;
        if (lead < 0x80)
            continue;
        /* The second byte has bounds of its own: no overlong form, no surrogate, no code point
         * beyond U+10FFFF. */
        int more = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : 1;
        uint8_t low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
        uint8_t high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
        if (lead < 0xc2 || lead > 0xf4 || end - p < more)
            return false;
        for (; more > 0; more--, p++) {
            if (*p < low || *p > high)
                return false;
            low = 0x80;
            high = 0xbf;
        }
    }
    return true;
}

static inline bool utf8_is_valid(const uint8_t *p, size_t size) {
    return utf8_is_ascii(p, size) || utf8_is_valid_slowly(p, size);
}

#endif
