/* What one extension makes and the other sends: batches, one after another, each when it is wanted.
 *
 * It goes from blaster._native to blaster._wire in a capsule of this name.
 */
#ifndef BLASTER_BATCH_SOURCE_H
#define BLASTER_BATCH_SOURCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BATCH_SOURCE "blaster._native.Batches.source"

struct batch_source {
    void *context;
    /* Takes it for one user at a time, who gives it back; false when another has it. To be called
     * with the GIL, as all that could change it meanwhile is. */
    bool (*acquire)(void *context);
    void (*release)(void *context);
    /* How many there are still. */
    size_t (*left)(void *context);
    /* The length of the next. */
    size_t (*length)(void *context);
    /* The length of what is needed to make it once more: far less than the batch. */
    size_t (*recipe_length)(void *context);
    /* Writes it and its recipe, and goes on to the one behind it. */
    void (*write)(void *context, uint8_t *out, void *recipe);
    /* Writes the batch of a recipe once more, the same bytes, however many have come since. */
    void (*write_again)(void *context, const void *recipe, uint8_t *out);
};

#endif
