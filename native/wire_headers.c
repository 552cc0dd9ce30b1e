#include "wire_headers.h"

#include "h2_frame.h"

#include <stdbool.h>
#include <string.h>

/* The static table's entries that a request can use (RFC 7541, appendix A). */
static const struct {
    const char *name, *value;
    uint8_t index;
} STATIC[] = {
    {":authority", NULL, 1},    {":method", "POST", 3},   {":path", NULL, 4},
    {":scheme", "http", 6},     {":scheme", "https", 7},  {"authorization", NULL, 23},
    {"content-type", NULL, 31}, {"user-agent", NULL, 58},
};
enum { FIRST_DYNAMIC = 62 };

struct block {
    uint8_t *bytes;
    size_t length;
    bool full;
};

static void put(struct block *block, const void *bytes, size_t length) {
    if (block->full || length > WIRE_BLOCK_MAX - block->length) {
        block->full = true;
        return;
    }
    memcpy(block->bytes + block->length, bytes, length);
    block->length += length;
}

/* An integer with a prefix of `bits` bits under `pattern` (RFC 7541, 5.1). */
static void put_integer(struct block *block, uint8_t pattern, int bits, size_t value) {
    uint8_t bytes[12];
    size_t length = 0, limit = ((size_t)1 << bits) - 1;
    if (value < limit) {
        bytes[length++] = (uint8_t)(pattern | value);
    } else {
        bytes[length++] = (uint8_t)(pattern | limit);
        for (value -= limit; value >= 128; value >>= 7)
            bytes[length++] = (uint8_t)(value | 128);
        bytes[length++] = (uint8_t)value;
    }
    put(block, bytes, length);
}

static void put_string(struct block *block, const char *string, size_t length) {
    put_integer(block, 0, 7, length);
    put(block, string, length);
}

static bool equal(const char *string, size_t length, const char *other) {
    return other != NULL && strlen(other) == length && memcmp(string, other, length) == 0;
}

/* A literal field (RFC 7541, 6.2), its name indexed where the static table has it. */
static void put_literal(struct block *block, const struct wire_field *field, size_t name,
                        bool insert) {
    put_integer(block, insert ? 0x40 : 0x00, insert ? 6 : 4, name);
    if (name == 0)
        put_string(block, field->name, field->name_length);
    put_string(block, field->value, field->value_length);
}

int wire_headers_encode(struct wire_headers *headers, const struct wire_field *fields, size_t count,
                        uint32_t table, int reset) {
    struct block first = {headers->first, 0, false}, later = {headers->later, 0, false};
    size_t used = 0, inserted = 0, total = 0;

    if (reset) {
        put_integer(&first, 0x20, 5, 0);
        put_integer(&first, 0x20, 5, table);
    }
    /* Two passes: a later block's indexes count from the newest entry, so the number of entries
     * must be known first. */
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < count; i++) {
            const struct wire_field *field = &fields[i];
            size_t name = 0, whole = 0;
            for (size_t s = 0; s < sizeof STATIC / sizeof *STATIC; s++) {
                if (equal(field->name, field->name_length, STATIC[s].name)) {
                    name = STATIC[s].index;
                    if (equal(field->value, field->value_length, STATIC[s].value))
                        whole = STATIC[s].index;
                }
            }
            if (name == 3 || name == 6 || name == 7)
                name = whole; /* those entries' names go with their values here */
            size_t size = field->name_length + field->value_length + H2_FIELD_OVERHEAD;
            bool fits = whole == 0 && size <= table - used;
            if (fits)
                used += size;
            if (pass == 0) {
                total += fits;
                continue;
            }
            if (whole != 0) {
                put_integer(&first, 0x80, 7, whole);
                put_integer(&later, 0x80, 7, whole);
            } else if (fits) {
                put_literal(&first, field, name, true);
                inserted++;
                put_integer(&later, 0x80, 7, FIRST_DYNAMIC + total - inserted);
            } else {
                put_literal(&first, field, name, false);
                put_literal(&later, field, name, false);
            }
        }
        used = 0;
    }
    headers->table = table;
    headers->first_length = first.length;
    headers->later_length = later.length;
    return first.full || later.full ? -1 : 0;
}
