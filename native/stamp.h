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

enum { STAMP_MAX_FRAMES = 4, STAMP_PADDED = 1024, STAMP_PADDING = 64 };

/* The bytes of one trace, as they stand inside the innermost frame. Where length is STAMP_PADDED or
 * less, STAMP_PADDING more bytes can be read behind them. */
struct stamp_variant {
    const uint8_t *data;
    size_t length;
    const struct stamp_slot *slots;
    size_t slot_count;
    size_t first_source; /* where its slots begin among the sources: the sum of those before */
};

/* A length-delimited message that is opened once a batch, outermost first: its tag, a length
 * computed for each batch, then `prefix`, then the next frame or the traces. */
struct stamp_frame {
    uint8_t tag;
    const uint8_t *prefix;
    size_t prefix_length;
};

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

/* A slot of a variant with the column it is filled from: trace t takes from + t * stride. */
struct stamp_source {
    const uint8_t *from;
    size_t stride;
    uint32_t offset;
    uint32_t width;
};

/* How many sources stamp_bind fills. */
size_t stamp_source_count(const struct stamp_template *template);

/* Resolves the slots of every variant, one variant after another, against these columns. */
void stamp_bind(const struct stamp_template *template, const struct stamp_column *columns,
                struct stamp_source *sources);

/* Length of the traces of these variants, which must be in range, without the frames. */
size_t stamp_traces_length(const struct stamp_template *template, const uint8_t *variants,
                           size_t traces);

/* Length of a batch whose traces have this length. */
size_t stamp_batch_length(const struct stamp_template *template, size_t traces_length);

/* Writes one batch of `traces` traces, whose rows in the columns begin at `first` and whose length
 * without the frames is `traces_length`, and returns the end of what it wrote. `sources` is what
 * stamp_bind filled. The caller has checked every variant number, that offset + width <= length and
 * shift + width <= stride for every slot, and that every column holds first + traces rows. */
uint8_t *stamp_batch(const struct stamp_template *template, const struct stamp_source *sources,
                     const uint8_t *variants, size_t first, size_t traces, size_t traces_length,
                     uint8_t *out);

#endif
