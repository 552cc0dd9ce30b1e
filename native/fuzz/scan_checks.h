/* What must hold of a scanner whatever it is given, for the fuzz targets of both encodings. */
#ifndef BLASTER_FUZZ_SCAN_CHECKS_H
#define BLASTER_FUZZ_SCAN_CHECKS_H

#include "scan.h"

#include <stdlib.h>
#include <string.h>

#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

/* Scans, checks what the counts gained, and returns the spans. */
static inline int64_t scan(struct scanner *scanner, enum scan_encoding encoding,
                           const uint8_t *data, size_t size) {
    struct scan_counts before, after;
    scanner_counts(scanner, &before);
    int64_t spans = scanner_request(scanner, encoding, data, size);
    scanner_counts(scanner, &after);
    if (spans < 0) {
        REQUIRE(spans == SCAN_MALFORMED);
        before.malformed++;
        REQUIRE(memcmp(&before, &after, sizeof before) == 0);
        return spans;
    }
    uint64_t gained = (uint64_t)spans;
    uint64_t invalid = after.invalid - before.invalid;
    REQUIRE(after.requests == before.requests + 1);
    REQUIRE(after.malformed == before.malformed);
    REQUIRE(after.bytes == before.bytes + size);
    REQUIRE(after.spans == before.spans + gained);
    REQUIRE(gained <= size / 2);
    REQUIRE(invalid <= gained);
    REQUIRE(after.duplicates - before.duplicates <= gained - invalid);
    for (int rule = 0; rule < SCAN_RULES; rule++)
        REQUIRE(after.violations[rule] - before.violations[rule] <= gained);
    return spans;
}

/* What was kept adds up to the violations of the spans with valid IDs, all of which have room. */
static inline void check_kept(struct scanner *scanner, const struct scan_counts *counts) {
    struct scan_violation *taken = malloc(SCAN_VIOLATIONS_ROOM * sizeof *taken);
    REQUIRE(taken != NULL);
    uint64_t missed, broken[SCAN_RULES] = {0};
    size_t count = scanner_take(scanner, taken, SCAN_VIOLATIONS_ROOM, &missed);
    for (size_t i = 0; i < count; i++) {
        REQUIRE(taken[i].rules != 0 && taken[i].rules >> SCAN_RULES == 0);
        for (int rule = 0; rule < SCAN_RULES; rule++)
            broken[rule] += taken[i].rules >> rule & 1;
    }
    for (int rule = 0; rule < SCAN_RULES; rule++) {
        REQUIRE(broken[rule] <= counts->violations[rule]);
        REQUIRE(missed != 0 || counts->violations[rule] - broken[rule] <= counts->invalid);
    }
    free(taken);
}

/* Scans a request twice and returns its spans: the same verdict again, what was kept adds up, and
 * while nothing was thinned, every ID is a duplicate. */
static inline int64_t scan_twice(struct scanner *scanner, enum scan_encoding encoding,
                                 const uint8_t *data, size_t size) {
    struct scan_counts first, second;
    scanner_watch(scanner, (1 << SCAN_RULES) - 1);
    int64_t spans = scan(scanner, encoding, data, size);
    scanner_counts(scanner, &first);
    check_kept(scanner, &first);
    REQUIRE(scan(scanner, encoding, data, size) == spans);
    scanner_counts(scanner, &second);
    if (scanner_sampling(scanner) == 1)
        REQUIRE(second.duplicates - first.duplicates == first.spans - first.invalid);
    return spans;
}

/* The same bytes in memory of their own, so that any read beyond their end is seen. */
static inline uint8_t *copy_of(const uint8_t *data, size_t size, size_t room) {
    uint8_t *copy = malloc(size + room);
    REQUIRE(copy != NULL || size + room == 0);
    if (size != 0)
        memcpy(copy, data, size);
    return copy;
}

#endif
