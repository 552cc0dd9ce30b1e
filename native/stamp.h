/* Stamps columns of IDs and times into prebuilt protobuf bytes.
 *
 * Knows nothing of Python, allocates nothing, has no globals.
 */
#ifndef BLASTER_STAMP_H
#define BLASTER_STAMP_H

#include <stddef.h>
#include <stdint.h>

/* A fixed-width place in a variant's bytes, and the place in a trace's row of a column that fills
 * it: out[offset : offset + width] = column[trace * stride + shift : … + width]. */
struct stamp_slot {
    uint32_t offset;
    uint32_t width;
    uint32_t column;
    uint32_t shift;
};

/* The bytes of one trace, as they stand inside the innermost frame. */
struct stamp_variant {
    const uint8_t *data;
    size_t length;
    const struct stamp_slot *slots;
    size_t slot_count;
};

/* A length-delimited message that is opened once a batch, outermost first: its tag, a length
 * computed for each batch, then `prefix`, then the next frame or the traces. */
struct stamp_frame {
    uint8_t tag;
    const uint8_t *prefix;
    size_t prefix_length;
};

enum { STAMP_MAX_FRAMES = 4 };

struct stamp_template {
    const struct stamp_frame *frames;
    size_t frame_count;
    const struct stamp_variant *variants;
    size_t variant_count;
};

/* Trace t of a column begins at data + t * stride. */
struct stamp_column {
    const uint8_t *data;
    size_t stride;
};

/* Length of the batch that holds the traces of these variants; the variants must be in range. */
size_t stamp_length(const struct stamp_template *template, const uint8_t *variants, size_t traces);

/* Writes one batch of `traces` traces, whose rows in the columns begin at `first`, and returns the
 * end of what it wrote: exactly stamp_length bytes. The caller has checked every variant number,
 * that offset + width <= length and shift + width <= stride for every slot, and that every column
 * holds first + traces rows. */
uint8_t *stamp_batch(const struct stamp_template *template, const struct stamp_column *columns,
                     const uint8_t *variants, size_t first, size_t traces, uint8_t *out);

#endif
