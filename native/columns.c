#include "columns.h"

/* Multiplying by an odd number and x ^= x >> k are bijections of 64-bit words: the steps of
 * SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
 */
#define MIX_1 UINT64_C(0xBF58476D1CE4E5B9)
#define MIX_2 UINT64_C(0x94D049BB133111EB)

static inline uint64_t finish(uint64_t x) {
    x ^= x >> 32;
    x *= MIX_1;
    return x ^ x >> 29;
}

/* Walks the cells of consecutive traces without a division a trace. */
struct walk {
    uint64_t due;       /* (n * share) mod of */
    uint64_t clean;     /* the place in the first cycle of the next trace that violates nothing */
    uint64_t places[3]; /* and of the next of each kind in its own */
    size_t kind;        /* of the next trace that violates, from 0 on */
};

static struct walk walk_from(const struct columns_mix *mix, uint64_t number) {
    const uint64_t before = number * mix->share / mix->of;
    struct walk walk = {
        .due = number * mix->share % mix->of,
        .clean = (number - before) % mix->cycles[0].length,
        .kind = before % 3,
    };
    for (size_t kind = 0; kind + 1 < mix->cycle_count; kind++)
        walk.places[kind] = (before + 2 - kind) / 3 % mix->cycles[1 + kind].length;
    return walk;
}

static inline uint64_t step(const struct columns_cycle *cycle, uint64_t *at) {
    const uint64_t here = *at;
    *at = here + 1 < cycle->length ? here + 1 : 0;
    return here;
}

static inline const struct columns_part *next_cell(const struct columns_mix *mix,
                                                   struct walk *walk) {
    walk->due += mix->share;
    if (walk->due < mix->of)
        return mix->cycles[0].parts + step(&mix->cycles[0], &walk->clean) * mix->parts;
    walk->due -= mix->of;
    const size_t kind = walk->kind;
    const struct columns_cycle *cycle = &mix->cycles[1 + kind];
    walk->kind = kind < 2 ? kind + 1 : 0;
    return cycle->parts + step(cycle, &walk->places[kind]) * mix->parts;
}

struct columns_totals columns_totals(const struct columns_mix *mix,
                                     const struct columns_batch *batch) {
    struct walk walk = walk_from(mix, batch->quota);
    struct columns_totals totals = {0, 0};
    for (size_t i = 0; i < batch->count; i++) {
        const struct columns_part *part = next_cell(mix, &walk) + batch->part;
        totals.entries += part->length;
        totals.spans += part->spans;
    }
    return totals;
}

void columns_variants(const struct columns_mix *mix, const struct columns_batch *batch,
                      uint16_t *variants) {
    struct walk walk = walk_from(mix, batch->quota);
    for (size_t i = 0; i < batch->count; i++)
        variants[i] = next_cell(mix, &walk)[batch->part].variant;
}

/* A vector of two words is multiplied in some eight steps, two words alone in two: GCC would take a
 * third longer for its vectors. */
#if defined(__GNUC__) && !defined(__clang__)
__attribute__((optimize("no-tree-vectorize")))
#endif
int64_t
columns_fill(const struct columns_mix *mix, const struct columns_batch *batch,
             struct columns_out *out) {
    /* Copies, so that no store into a column can seem to change them. */
    const struct columns_mix own = *mix;
    struct walk walk = walk_from(mix, batch->quota);
    const size_t count = batch->count, at = batch->part;
    const int64_t ended = batch->ended;
    uint64_t *restrict high = out->high, *restrict low = out->low;
    uint64_t *restrict span_ids = out->span_ids;
    int64_t *restrict starts = out->starts, *restrict ends = out->ends;
    uint16_t *restrict variants = out->variants;
    int64_t room = out->room, spans = 0;
    /* Numbers count from 1: the mixing maps 0 to 0, and an ID of zero is invalid. */
    uint64_t word = (batch->first + 1) * own.odd_trace;
    uint64_t base = (batch->first + 1) * own.span_step;
    for (size_t i = 0; i < count; i++, word += own.odd_trace) {
        const uint64_t folded = word ^ word >> 32, mixed = folded * MIX_2;
        high[i] = mixed ^ mixed >> 29;
        low[i] = finish(word);
    }
    for (size_t i = 0; i < count; i++, base += own.span_step) {
        const struct columns_part *part = next_cell(&own, &walk) + at;
        const struct columns_entry *entry = part->entries;
        const int64_t begin = ended - part->extent, length = part->length;
        if (length > room)
            return -1;
        room -= length;
        spans += part->spans;
        variants[i] = part->variant;
        for (int64_t k = 0; k < length; k++, entry++) {
            *span_ids++ = finish(base + entry->step);
            *starts++ = begin + entry->start;
            *ends++ = begin + entry->end;
        }
    }
    *out = (struct columns_out){high + count, low + count, variants + count, span_ids, starts,
                                ends,         room};
    return spans;
}
