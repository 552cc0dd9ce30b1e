#include "stamp.h"

#include "varint.h"

#include <string.h>

size_t stamp_traces_length(const struct stamp_template *template, const uint16_t *variants,
                           size_t traces) {
    size_t length = 0;
    for (size_t i = 0; i < traces; i++)
        length += template->variants[variants[i]].length;
    return length;
}

static const struct stamp_framing *framing_of(const struct stamp_template *template,
                                              const uint16_t *variants, size_t traces) {
    return &template->framings[traces > 0 ? template->variants[variants[0]].framing : 0];
}

/* Fills lengths[i] with the length of what stands inside frame i; returns the whole batch's. */
static size_t frame_lengths(const struct stamp_framing *framing, size_t inner,
                            size_t lengths[STAMP_MAX_FRAMES]) {
    for (size_t i = framing->frame_count; i-- > 0;) {
        inner += framing->frames[i].prefix_length;
        lengths[i] = inner;
        inner += 1 + varint_length(inner);
    }
    return inner;
}

size_t stamp_batch_length(const struct stamp_template *template, const uint16_t *variants,
                          size_t traces, size_t traces_length) {
    size_t lengths[STAMP_MAX_FRAMES];
    const struct stamp_framing *framing = framing_of(template, variants, traces);
    return framing->head_length + frame_lengths(framing, traces_length, lengths) +
           framing->tail_length;
}

static uint8_t *write_text(const uint8_t *text, size_t length, uint8_t *out) {
    if (length > 0)
        memcpy(out, text, length);
    return out + length;
}

static uint8_t *write_frames(const struct stamp_framing *framing, size_t traces_length,
                             uint8_t *out) {
    size_t lengths[STAMP_MAX_FRAMES];
    frame_lengths(framing, traces_length, lengths);
    for (size_t i = 0; i < framing->frame_count; i++) {
        const struct stamp_frame *frame = &framing->frames[i];
        *out++ = frame->tag;
        out = varint_write(out, lengths[i]);
        memcpy(out, frame->prefix, frame->prefix_length);
        out += frame->prefix_length;
    }
    return out;
}

/* Wider moves where the processor has them, chosen when the library is loaded. The sanitizers'
 * runtimes are not ready yet when such a choice is made. */
#if defined(__x86_64__) && defined(__linux__) && !defined(BLASTER_SANITIZE)
#define WIDE __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define WIDE
#endif

enum { BLOCK = 64, ALIGNED = 16, MOST_RUN = 16, RUN_BYTES = 16384 };

/* Copies whole blocks, up to BLOCK - 1 bytes more than asked for: a constant size needs no call
 * and no branches on what is left. All but the first are aligned where they are written, since a
 * store across a line's end, or on some processors across 16 bytes', costs several. */
static inline __attribute__((always_inline)) void
copy_blocks(uint8_t *restrict out, const uint8_t *restrict from, size_t length) {
    memcpy(out, from, ALIGNED);
    for (size_t i = ALIGNED - (uintptr_t)out % ALIGNED; i < length; i += BLOCK)
        memcpy(__builtin_assume_aligned(out + i, ALIGNED), from + i, BLOCK);
}

/* How many traces from the first on share its variant: slot by slot over a run costs less than
 * trace by trace. Not more than stay in the nearest cache. */
static inline __attribute__((always_inline)) size_t
run_of(const struct stamp_variant *variant, const uint16_t *variants, size_t traces) {
    size_t run = 1;
    size_t most = traces < MOST_RUN ? traces : MOST_RUN;
    if (variant->length > RUN_BYTES / MOST_RUN)
        return 1;
    while (run < most && variants[run] == variants[0])
        run++;
    return run;
}

/* Widths that are known, or nearly, compile to moves; two of them may overlap. */
static inline __attribute__((always_inline)) void copy_slot(uint8_t *to, const uint8_t *from,
                                                            size_t width) {
    if (width == 8) {
        memcpy(to, from, 8);
    } else if (width > 16) {
        memcpy(to, from, width);
    } else if (width > 8) {
        memcpy(to, from, 8);
        memcpy(to + width - 8, from + width - 8, 8);
    } else if (width >= 4) {
        memcpy(to, from, 4);
        memcpy(to + width - 4, from + width - 4, 4);
    } else {
        for (size_t i = 0; i < width; i++)
            to[i] = from[i];
    }
}

WIDE uint8_t *stamp_batch(const struct stamp_template *template, struct stamp_cursors *cursors,
                          const uint16_t *variants, size_t traces, size_t traces_length,
                          uint8_t *out) {
    const struct stamp_framing *framing = framing_of(template, variants, traces);
    out = write_frames(framing, traces_length, out);
    out = write_text(framing->head, framing->head_length, out);
    uint8_t *begin = out;
    const uint8_t *end = out + traces_length;
    const struct stamp_variant *table = template->variants;
    for (size_t t = 0; t < traces;) {
        const struct stamp_variant *variant = &table[variants[t]];
        const size_t length = variant->length;
        const size_t run = run_of(variant, variants + t, traces - t);
        uint8_t *to = out;
        for (size_t i = 0; i < run; i++, to += length) {
            /* What a whole block writes too much, the next trace overwrites: not in the last. */
            if (length <= STAMP_PADDED && length + BLOCK <= (size_t)(end - to))
                copy_blocks(to, variant->data, length);
            else
                memcpy(to, variant->data, length);
        }
        const struct stamp_slot *slot = variant->slots;
        const struct stamp_slot *last = slot + variant->slot_count;
        for (; slot < last; slot++) {
            const uint8_t *from = cursors->at[slot->column] + slot->shift;
            const size_t stride = variant->strides[slot->column], width = slot->width;
            to = out + slot->offset;
            if (width == 8)
                /* IDs and times are 8 bytes wide: a constant width compiles to one move. */
                for (size_t i = 0; i < run; i++, to += length, from += stride)
                    memcpy(to, from, 8);
            else
                for (size_t i = 0; i < run; i++, to += length, from += stride)
                    copy_slot(to, from, width);
        }
        for (size_t c = 0; c < template->column_count; c++)
            cursors->at[c] += run * variant->strides[c];
        out += run * length;
        t += run;
    }
    if (framing->head_length > 0 && traces_length > 0)
        *begin = ' ';
    return write_text(framing->tail, framing->tail_length, out);
}
