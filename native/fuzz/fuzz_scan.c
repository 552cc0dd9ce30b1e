/* libFuzzer over scanner_request: reads nothing outside the input (ASan), and its counts add up.
 *
 * sources: scan.c idset.c
 * seeds: seeds_scan.py
 */
#include "scan.h"

#include <stdlib.h>
#include <string.h>

#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

/* Scans, checks what the counts gained, and returns the spans. */
static int64_t scan(struct scanner *scanner, const uint8_t *data, size_t size) {
    struct scan_counts before, after;
    scanner_counts(scanner, &before);
    int64_t spans = scanner_request(scanner, data, size);
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
static void check_kept(struct scanner *scanner, const struct scan_counts *counts) {
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct scanner *scanner = scanner_new(1);
    REQUIRE(scanner != NULL);
    scanner_watch(scanner, (1 << SCAN_RULES) - 1);
    int64_t spans = scan(scanner, data, size);

    /* The same request again: the same verdict, and while nothing was thinned, every ID a
     * duplicate.
     */
    struct scan_counts first, second;
    scanner_counts(scanner, &first);
    check_kept(scanner, &first);
    REQUIRE(scan(scanner, data, size) == spans);
    scanner_counts(scanner, &second);
    if (scanner_sampling(scanner) == 1)
        REQUIRE(second.duplicates - first.duplicates == first.spans - first.invalid);

    /* Two requests one after the other are one request with the spans of both. */
    uint8_t *twice = malloc(2 * size + 1);
    REQUIRE(twice != NULL);
    if (size != 0) {
        memcpy(twice, data, size);
        memcpy(twice + size, data, size);
    }
    int64_t both = scan(scanner, twice, 2 * size);
    if (spans >= 0)
        REQUIRE(both == 2 * spans);
    free(twice);
    scanner_free(scanner);
    return 0;
}
