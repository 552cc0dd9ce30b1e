/* Makes batches one after another, each when it is wanted: its columns, and from them its bytes.
 *
 * The columns of one batch stay in the nearest caches, where those of many would go to memory and
 * back; and so do its bytes, until they are sent. Knows nothing of Python, allocates nothing, has
 * no globals.
 */
#ifndef BLASTER_BATCHES_H
#define BLASTER_BATCHES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "columns.h"
#include "stamp.h"

/* The columns of a template, in the order in which its slots name them. */
enum {
    BATCHES_HIGH,
    BATCHES_LOW,
    BATCHES_SPAN_ID,
    BATCHES_START,
    BATCHES_END,
    BATCHES_DIGITS,
    BATCHES_COLUMNS
};

struct batches {
    const struct columns_mix *mix;
    const struct stamp_template *template; /* of BATCHES_COLUMNS columns */
    struct columns_out room;               /* for the columns of the largest batch */
    struct columns_rows rows;              /* what is to be made */
    size_t next;                           /* the next of them */
    const uint8_t *digits;                 /* the column of the traces from the next batch on */
    bool filled;                           /* the columns of the next batch are there */
    size_t traces_length;                  /* and its length, without the frames */
    bool draws;                            /* the template has digits */
};

/* What a batch is made of, to make it once more. */
struct batches_recipe {
    struct columns_batch batch;
    size_t traces_length;
    uint8_t digits[]; /* that its traces take */
};

/* The length of the next batch, of which there must be one. */
size_t batches_length(struct batches *batches);

/* The length of its recipe. */
size_t batches_recipe_length(struct batches *batches);

/* Writes the next batch and its recipe (unless that is NULL), and goes on to the one behind it. */
void batches_write(struct batches *batches, uint8_t *out, struct batches_recipe *recipe);

/* Writes the batch of a recipe once more: the same bytes. */
void batches_write_again(struct batches *batches, const struct batches_recipe *recipe,
                         uint8_t *out);

#endif
