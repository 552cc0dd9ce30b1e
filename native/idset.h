/* A set of 64-bit fingerprints in bounded memory, for finding IDs that come twice.
 *
 * Exact until it holds `capacity` fingerprints. Then it thins itself: it keeps only those whose low
 * k bits are zero (k grows by one each time it is full again), so that one ID in 2^k is watched,
 * always the same ones, and each of those exactly.
 *
 * Knows nothing of Python and has no globals.
 */
#ifndef BLASTER_IDSET_H
#define BLASTER_IDSET_H

#include <stddef.h>
#include <stdint.h>

struct idset {
    uint64_t *slots; /* linear probing from the slot that the high bits name; 0 is an empty slot */
    unsigned bits;   /* there are 2^bits slots */
    size_t used;
    size_t capacity;    /* fingerprints at most */
    unsigned thinned;   /* k: fingerprints whose low k bits are not zero are passed over */
    uint64_t secret[4]; /* of the hash, so that nobody outside can choose IDs that collide */
};

/* Starts small, whatever the capacity; at least 1,024 are held. Returns -1 when memory is short. */
int idset_init(struct idset *set, size_t capacity, uint64_t seed);
void idset_free(struct idset *set);

/* The fingerprint of the ID of a span: the 16 bytes of its trace's, the 8 bytes of its own. */
uint64_t idset_fingerprint(const struct idset *set, const uint8_t *trace_id,
                           const uint8_t *span_id);

/* Adds them all and returns how many were there before (earlier ones of the same call included).
 * When memory is too short to grow, it thins instead. */
size_t idset_add(struct idset *set, const uint64_t *fingerprints, size_t count);

#endif
