#include "stamp.h"

#include <string.h>

static size_t varint_length(size_t value) {
    size_t length = 1;
    while (value >= 0x80) {
        value >>= 7;
        length++;
    }
    return length;
}

static uint8_t *write_varint(uint8_t *out, size_t value) {
    while (value >= 0x80) {
        *out++ = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    *out++ = (uint8_t)value;
    return out;
}

static size_t traces_length(const struct stamp_template *template, const uint8_t *variants,
                            size_t traces) {
    size_t length = 0;
    for (size_t i = 0; i < traces; i++)
        length += template->variants[variants[i]].length;
    return length;
}

/* Fills lengths[i] with the length of what stands inside frame i; returns the whole batch's. */
static size_t frame_lengths(const struct stamp_template *template, size_t inner,
                            size_t lengths[STAMP_MAX_FRAMES]) {
    for (size_t i = template->frame_count; i-- > 0;) {
        inner += template->frames[i].prefix_length;
        lengths[i] = inner;
        inner += 1 + varint_length(inner);
    }
    return inner;
}

size_t stamp_length(const struct stamp_template *template, const uint8_t *variants, size_t traces) {
    size_t lengths[STAMP_MAX_FRAMES];
    return frame_lengths(template, traces_length(template, variants, traces), lengths);
}

uint8_t *stamp_batch(const struct stamp_template *template, const struct stamp_column *columns,
                     const uint8_t *variants, size_t first, size_t traces, uint8_t *out) {
    size_t lengths[STAMP_MAX_FRAMES];
    frame_lengths(template, traces_length(template, variants, traces), lengths);
    for (size_t i = 0; i < template->frame_count; i++) {
        const struct stamp_frame *frame = &template->frames[i];
        *out++ = frame->tag;
        out = write_varint(out, lengths[i]);
        memcpy(out, frame->prefix, frame->prefix_length);
        out += frame->prefix_length;
    }
    for (size_t t = 0; t < traces; t++) {
        const struct stamp_variant *variant = &template->variants[variants[t]];
        memcpy(out, variant->data, variant->length);
        for (size_t s = 0; s < variant->slot_count; s++) {
            const struct stamp_slot *slot = &variant->slots[s];
            const struct stamp_column *column = &columns[slot->column];
            const uint8_t *from = column->data + (first + t) * column->stride + slot->shift;
            /* IDs and times are 8 bytes wide: a constant width compiles to one move. */
            if (slot->width == 8)
                memcpy(out + slot->offset, from, 8);
            else
                memcpy(out + slot->offset, from, slot->width);
        }
        out += variant->length;
    }
    return out;
}
