#include "digits.h"

#include <string.h>

#define HEX(high)                                                                                  \
    high "0" high "1" high "2" high "3" high "4" high "5" high "6" high "7" high "8" high "9" high \
         "a" high "b" high "c" high "d" high "e" high "f"

static const char HEX_PAIRS[] = HEX("0") HEX("1") HEX("2") HEX("3") HEX("4") HEX("5") HEX("6")
    HEX("7") HEX("8") HEX("9") HEX("a") HEX("b") HEX("c") HEX("d") HEX("e") HEX("f");

#define TENS(high)                                                                                 \
    high "0" high "1" high "2" high "3" high "4" high "5" high "6" high "7" high "8" high "9"

static const char DECIMAL_PAIRS[] = TENS("0") TENS("1") TENS("2") TENS("3") TENS("4") TENS("5")
    TENS("6") TENS("7") TENS("8") TENS("9");

void digits_hex(const uint8_t *bytes, size_t count, uint8_t *out) {
    for (size_t i = 0; i < count; i++)
        memcpy(out + 2 * i, HEX_PAIRS + 2 * bytes[i], 2);
}

/* Eight digits of a number below 10^8. */
static void write_eight(uint32_t value, uint8_t *out) {
    uint32_t high = value / 10000, low = value % 10000;
    memcpy(out, DECIMAL_PAIRS + 2 * (high / 100), 2);
    memcpy(out + 2, DECIMAL_PAIRS + 2 * (high % 100), 2);
    memcpy(out + 4, DECIMAL_PAIRS + 2 * (low / 100), 2);
    memcpy(out + 6, DECIMAL_PAIRS + 2 * (low % 100), 2);
}

bool digits_decimal(const uint64_t *words, size_t count, uint8_t *out) {
    const uint64_t eight = 100000000;
    for (size_t i = 0; i < count; i++, out += DIGITS_DECIMAL) {
        uint64_t above = words[i] / eight, top = above / eight;
        if (top > 999)
            return false;
        out[0] = (uint8_t)('0' + top / 100);
        memcpy(out + 1, DECIMAL_PAIRS + 2 * (top % 100), 2);
        write_eight((uint32_t)(above % eight), out + 3);
        write_eight((uint32_t)(words[i] % eight), out + 11);
    }
    return true;
}
