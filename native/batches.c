#include "batches.h"

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

void batches_write(struct batches *batches, uint8_t *out) {
    const struct columns_out *room = &batches->room;
    struct stamp_cursors cursors = {{
        [BATCHES_HIGH] = (const uint8_t *)room->high,
        [BATCHES_LOW] = (const uint8_t *)room->low,
        [BATCHES_SPAN_ID] = (const uint8_t *)room->span_ids,
        [BATCHES_START] = (const uint8_t *)room->starts,
        [BATCHES_END] = (const uint8_t *)room->ends,
        [BATCHES_DIGITS] = batches->digits,
    }};
    fill(batches);
    stamp_batch(batches->template, &cursors, room->variants,
                (size_t)batches->rows.counts[batches->next], batches->traces_length, out);
    batches->digits = cursors.at[BATCHES_DIGITS];
    batches->filled = false;
    batches->next++;
}
