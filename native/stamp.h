/* Stamps columns of IDs and times into prebuilt bytes, of protobuf or, as digits, of JSON.
 *
 * Knows nothing of Python, allocates nothing, has no globals.
 */
#ifndef BLASTER_STAMP_H
#define BLASTER_STAMP_H

#include <stddef.h>
#include <stdint.h>

/* A fixed-width place in a variant's bytes, and the place in a trace's part of a column that fills
 * it: out[offset : offset + width] = part[shift : shift + width]. */
struct stamp_slot {
    uint32_t offset;
    uint32_t width;
    uint32_t column;
    uint32_t shift;
};

enum { STAMP_MAX_FRAMES = 4, STAMP_MAX_COLUMNS = 16, STAMP_PADDED = 1024, STAMP_PADDING = 64 };

/* The bytes of one trace, as they stand inside the innermost frame. Where length is STAMP_PADDED or
 * less, STAMP_PADDING more bytes can be read behind them. */
struct stamp_variant {
    const uint8_t *data;
    size_t length;
    const struct stamp_slot *slots;
    size_t slot_count;
    const size_t *strides; /* how many bytes the trace takes of each column: its part */
    size_t framing;
};

/* A length-delimited message that is opened once a batch, outermost first: its tag, a length
 * computed for each batch, then `prefix`, then the next frame or the traces. */
struct stamp_frame {
    uint8_t tag;
    const uint8_t *prefix;
    size_t prefix_length;
};

/* What stands around a batch; that of its first trace's variant is taken. Either frames, or the
 * head and the tail of a text, in which every trace begins with a separator: that of the first is
 * blanked. */
struct stamp_framing {
    struct stamp_frame frames[STAMP_MAX_FRAMES];
    size_t frame_count;
    const uint8_t *head, *tail;
    size_t head_length, tail_length;
};

struct stamp_template {
    const struct stamp_framing *framings;
    size_t framing_count;
    const struct stamp_variant *variants;
    size_t variant_count;
    size_t column_count;
};

/* Where the next trace's part of each column begins. */
struct stamp_cursors {
    const uint8_t *at[STAMP_MAX_COLUMNS];
};

/* Length of the traces of these variants, which must be in range, without the frames. */
size_t stamp_traces_length(const struct stamp_template *template, const uint16_t *variants,
                           size_t traces);

/* Length of a batch of these variants whose traces have this length. */
size_t stamp_batch_length(const struct stamp_template *template, const uint16_t *variants,
                          size_t traces, size_t traces_length);

/* Writes one batch of `traces` traces, whose length without the frames is `traces_length`, moves
 * the cursors behind their parts of the columns, and returns the end of what it wrote. The caller
 * has checked every variant number, that offset + width <= length and shift + width <= stride for
 * every slot, and that every column holds the parts of all its traces. */
uint8_t *stamp_batch(const struct stamp_template *template, struct stamp_cursors *cursors,
                     const uint16_t *variants, size_t traces, size_t traces_length, uint8_t *out);

#endif
