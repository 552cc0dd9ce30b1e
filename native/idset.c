#ifndef _DEFAULT_SOURCE
#define _DEFAULT_SOURCE /* madvise */
#endif
#include "idset.h"

#include <stdlib.h>
#include <string.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

enum { FIRST_BITS = 12, LEAST_CAPACITY = 1024, MOST_BITS = 40, AHEAD = 16, HUGE_PAGE = 1 << 21 };

static uint64_t load64(const uint8_t *data) {
    uint64_t value;
    memcpy(&value, data, sizeof value);
    return value;
}

/* High half of the product xor its low half: each output bit hangs on all bits of both inputs. */
static uint64_t multiply_fold(uint64_t a, uint64_t b) {
#ifdef __SIZEOF_INT128__
    __extension__ typedef unsigned __int128 uint128;
    uint128 product = (uint128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
#else
    uint64_t al = (uint32_t)a, ah = a >> 32, bl = (uint32_t)b, bh = b >> 32;
    uint64_t middle = ah * bl + ((al * bl) >> 32);
    uint64_t carry = al * bh + (uint32_t)middle;
    return (a * b) ^ (ah * bh + (middle >> 32) + (carry >> 32));
#endif
}

uint64_t idset_fingerprint(const struct idset *set, const uint8_t *trace_id,
                           const uint8_t *span_id) {
    const uint64_t *secret = set->secret;
    uint64_t trace = multiply_fold(load64(trace_id) ^ secret[0], load64(trace_id + 8) ^ secret[1]);
    uint64_t both = multiply_fold(load64(span_id) ^ secret[2], trace ^ secret[3]);
    both = multiply_fold(both ^ trace, 0x9E3779B97F4A7C15u);
    return both != 0 ? both : (uint64_t)1 << 63;
}

/* At most three quarters full: probes stay short. */
static size_t room(const struct idset *set) { return ((size_t)3 << set->bits) >> 2; }

/* Empty slots; in huge pages where the system has them: a large set is looked into everywhere, and
 * would miss the address cache each time. */
static uint64_t *new_slots(unsigned bits) {
    size_t size = sizeof(uint64_t) << bits;
#ifdef MADV_HUGEPAGE
    if (size >= 2 * HUGE_PAGE) {
        uint64_t *slots = aligned_alloc(HUGE_PAGE, size);
        if (slots != NULL) {
            madvise(slots, size, MADV_HUGEPAGE); /* in vain is no harm */
            memset(slots, 0, size);
        }
        return slots;
    }
#endif
    return calloc(1, size);
}

int idset_init(struct idset *set, size_t capacity, uint64_t seed) {
    memset(set, 0, sizeof *set);
    set->capacity = capacity < LEAST_CAPACITY ? LEAST_CAPACITY : capacity;
    set->bits = FIRST_BITS;
    for (int i = 0; i < 4; i++) { /* splitmix64 */
        uint64_t z = seed += 0x9E3779B97F4A7C15u;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
        set->secret[i] = z ^ (z >> 31);
    }
    set->slots = new_slots(set->bits);
    return set->slots == NULL ? -1 : 0;
}

void idset_free(struct idset *set) {
    free(set->slots);
    set->slots = NULL;
}

/* The slot that holds the fingerprint, or the empty one where it belongs. */
static size_t find(const struct idset *set, uint64_t fingerprint) {
    size_t mask = ((size_t)1 << set->bits) - 1;
    size_t i = (size_t)(fingerprint >> (64 - set->bits));
    while (set->slots[i] != 0 && set->slots[i] != fingerprint)
        i = (i + 1) & mask;
    return i;
}

/* Doubles the slots. Indexes are high bits, so both tables are walked in ascending order. */
static int grow(struct idset *set) {
    if (set->bits >= MOST_BITS || set->bits + 4 >= sizeof(size_t) * 8)
        return -1;
    struct idset larger = *set;
    larger.bits++;
    larger.slots = new_slots(larger.bits);
    if (larger.slots == NULL)
        return -1;
    for (size_t i = 0; i < (size_t)1 << set->bits; i++)
        if (set->slots[i] != 0)
            larger.slots[find(&larger, set->slots[i])] = set->slots[i];
    free(set->slots);
    *set = larger;
    return 0;
}

static int passed_over(const struct idset *set, uint64_t fingerprint) {
    return (fingerprint & (((uint64_t)1 << set->thinned) - 1)) != 0;
}

/* Purges in place every second fingerprint. Begins after an empty slot: then each one is taken out
 * after all that stand before it in its run were put back, and finds its place at or before its
 * old one. */
static void thin(struct idset *set) {
    size_t size = (size_t)1 << set->bits, start = 0;
    set->thinned++;
    while (set->slots[start] != 0)
        start++;
    for (size_t step = 1; step < size; step++) {
        size_t i = (start + step) & (size - 1);
        uint64_t fingerprint = set->slots[i];
        if (fingerprint == 0)
            continue;
        set->slots[i] = 0;
        if (passed_over(set, fingerprint))
            set->used--;
        else
            set->slots[find(set, fingerprint)] = fingerprint;
    }
}

static void make_room(struct idset *set) {
    if (set->used < set->capacity && (set->used < room(set) || grow(set) == 0))
        return;
    /* One pass halves a set of good hashes. The bound ends the loop whatever the hashes are: with
     * 63 bits zero at most two are left. */
    while (set->thinned < 63 && (set->used >= set->capacity || set->used >= room(set)))
        thin(set);
}

/* In time for its turn: a slot is a cache miss in a large set. */
static inline void expect(const struct idset *set, uint64_t fingerprint) {
    __builtin_prefetch(&set->slots[fingerprint >> (64 - set->bits)], 1);
}

size_t idset_add(struct idset *set, const uint64_t *fingerprints, size_t count) {
    size_t before = 0;
    for (size_t i = 0; i < AHEAD && i < count; i++)
        expect(set, fingerprints[i]);
    for (size_t i = 0; i < count; i++) {
        if (i + AHEAD < count)
            expect(set, fingerprints[i + AHEAD]);
        if (passed_over(set, fingerprints[i]))
            continue;
        size_t at = find(set, fingerprints[i]);
        if (set->slots[at] != 0) {
            before++;
            continue;
        }
        if (set->used >= set->capacity || set->used >= room(set)) {
            make_room(set);
            if (passed_over(set, fingerprints[i]))
                continue;
            at = find(set, fingerprints[i]);
        }
        set->slots[at] = fingerprints[i];
        set->used++;
    }
    return before;
}
