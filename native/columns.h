/* Makes the columns of IDs and times: which cell of the mix each trace takes, and what follows.
 *
 * Knows nothing of Python, allocates nothing, has no globals. What it must compute is written down
 * once more, plainly, in tests/support/kernel_twin.py.
 */
#ifndef BLASTER_COLUMNS_H
#define BLASTER_COLUMNS_H

#include <stddef.h>
#include <stdint.h>

enum { COLUMNS_MAX_CYCLES = 4 };

/* A row of the tables of the template's entries: a span (or an event) of one timing. */
struct columns_entry {
    uint64_t step;      /* what its span ID's number is above its trace's */
    int64_t start, end; /* nanoseconds from the trace's beginning */
};

/* One part of one cell. */
struct columns_part {
    const struct columns_entry *entries;
    int64_t length; /* its entries */
    int64_t extent; /* nanoseconds from the trace's beginning to its end */
    int64_t spans;
    uint16_t variant;
};

/* The cells that one kind of traces takes in turn. */
struct columns_cycle {
    const struct columns_part *parts; /* of the first cell; `parts` of the mix a cell */
    uint64_t length;                  /* cells, at least 1 */
};

struct columns_mix {
    uint64_t odd_trace, span_step;
    uint64_t share, of; /* trace n violates where floor((n + 1) * share / of) > floor(n * ...) */
    size_t parts;
    /* The first: of traces that violate nothing; then, where any do, of each kind of violation. */
    struct columns_cycle cycles[COLUMNS_MAX_CYCLES];
    size_t cycle_count;
};

/* Part `part` of `count` traces: their IDs by their numbers from `first` on, all else by those from
 * `quota` on, which are below 2^43. They ended at `ended`. */
struct columns_batch {
    uint64_t first, quota;
    size_t count, part;
    int64_t ended;
};

/* Many batches, an item of each array a batch. */
struct columns_rows {
    const int64_t *first, *counts, *parts, *quota, *ended;
    size_t count;
    size_t traces; /* of all of them */
};

static inline struct columns_batch columns_row(const struct columns_rows *rows, size_t i) {
    return (struct columns_batch){
        .first = (uint64_t)rows->first[i],
        .quota = (uint64_t)rows->quota[i],
        .count = (size_t)rows->counts[i],
        .part = (size_t)rows->parts[i],
        .ended = rows->ended[i],
    };
}

/* Where the next rows go, and the rows of entries that there is room for. */
struct columns_out {
    uint64_t *high, *low;
    uint16_t *variants;
    uint64_t *span_ids;
    int64_t *starts, *ends;
    int64_t room;
};

/* The entries and the spans that the batch takes. */
struct columns_totals {
    int64_t entries, spans;
};
struct columns_totals columns_totals(const struct columns_mix *mix,
                                     const struct columns_batch *batch);

/* The variants that its traces take. */
void columns_variants(const struct columns_mix *mix, const struct columns_batch *batch,
                      uint16_t *variants);

/* Fills the batch's rows, moves `out` behind them and returns its spans; -1 when the room is too
 * small. The caller has checked `part`, `quota`, and that high, low and variants have room. */
int64_t columns_fill(const struct columns_mix *mix, const struct columns_batch *batch,
                     struct columns_out *out);

#endif
