/* The header block of every request of a connection, HPACK-encoded once (RFC 7541).
 *
 * All requests carry the same fields. The first block of a connection inserts them into the peer's
 * dynamic table; every later block is then a few bytes of indexes, and constant: nothing is ever
 * evicted, because only what fits is inserted.
 */
#ifndef BLASTER_WIRE_HEADERS_H
#define BLASTER_WIRE_HEADERS_H

#include <stddef.h>
#include <stdint.h>

/* A block fits the smallest SETTINGS_MAX_FRAME_SIZE, so it never needs CONTINUATION. */
enum { WIRE_BLOCK_MAX = 12288 };

struct wire_field {
    const char *name;
    size_t name_length;
    const char *value;
    size_t value_length;
};

struct wire_headers {
    uint32_t table; /* the encoder's dynamic table size, at most what the peer allows */
    size_t first_length, later_length;
    uint8_t first[WIRE_BLOCK_MAX], later[WIRE_BLOCK_MAX];
};

/* Encodes the fields for a dynamic table of `table` bytes. `reset`: the peer lowered its limit in
 * mid-connection, so the first block empties the table and says the new size (RFC 7541, 4.2).
 * 0, or -1 when a block would be longer than WIRE_BLOCK_MAX. */
int wire_headers_encode(struct wire_headers *headers, const struct wire_field *fields, size_t count,
                        uint32_t table, int reset);

#endif
