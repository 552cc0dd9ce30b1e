#include "batches.h"

#include <string.h>

/* Makes the columns of the next batch, unless they are there. */
static void fill(struct batches *batches) {
    if (batches->filled)
        return;
    const struct columns_batch batch = columns_row(&batches->rows, batches->next);
    struct columns_out out = batches->room;
    columns_fill(batches->mix, &batch, &out);
    batches->traces_length =
        stamp_traces_length(batches->template, batches->room.variants, batch.count);
    batches->filled = true;
}

size_t batches_length(struct batches *batches) {
    fill(batches);
    return stamp_batch_length(batches->template, batches->room.variants,
                              (size_t)batches->rows.counts[batches->next], batches->traces_length);
}

/* The bytes of digits that the traces take whose columns are in the room. */
static size_t digits_length(const struct batches *batches, size_t traces) {
    const struct stamp_variant *variants = batches->template->variants;
    size_t length = 0;
    for (size_t t = 0; batches->draws && t < traces; t++)
        length += variants[batches->room.variants[t]].strides[BATCHES_DIGITS];
    return length;
}

size_t batches_recipe_length(struct batches *batches) {
    fill(batches);
    return sizeof(struct batches_recipe) +
           digits_length(batches, (size_t)batches->rows.counts[batches->next]);
}

/* Stamps the columns in the room; returns where the digits of the next batch begin. */
static const uint8_t *stamp(struct batches *batches, size_t traces, size_t traces_length,
                            const uint8_t *digits, uint8_t *out) {
    const struct columns_out *room = &batches->room;
    struct stamp_cursors cursors = {{
        [BATCHES_HIGH] = (const uint8_t *)room->high,
        [BATCHES_LOW] = (const uint8_t *)room->low,
        [BATCHES_SPAN_ID] = (const uint8_t *)room->span_ids,
        [BATCHES_START] = (const uint8_t *)room->starts,
        [BATCHES_END] = (const uint8_t *)room->ends,
        [BATCHES_DIGITS] = digits,
    }};
    stamp_batch(batches->template, &cursors, room->variants, traces, traces_length, out);
    return cursors.at[BATCHES_DIGITS];
}

void batches_write(struct batches *batches, uint8_t *out, struct batches_recipe *recipe) {
    fill(batches);
    const size_t traces = (size_t)batches->rows.counts[batches->next];
    const uint8_t *digits = batches->digits;
    batches->digits = stamp(batches, traces, batches->traces_length, digits, out);
    if (recipe != NULL) {
        recipe->batch = columns_row(&batches->rows, batches->next);
        recipe->traces_length = batches->traces_length;
        if (batches->digits > digits)
            memcpy(recipe->digits, digits, (size_t)(batches->digits - digits));
    }
    batches->filled = false;
    batches->next++;
}

void batches_write_again(struct batches *batches, const struct batches_recipe *recipe,
                         uint8_t *out) {
    struct columns_out room = batches->room;
    columns_fill(batches->mix, &recipe->batch, &room);
    batches->filled = false; /* the room has other columns now */
    stamp(batches, recipe->batch.count, recipe->traces_length, recipe->digits, out);
}
