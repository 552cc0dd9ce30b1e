/* libFuzzer over the scan of JSON: reads nothing outside the input (ASan), and its counts add up.
 *
 * sources: scan.c json_scan.c idset.c
 * seeds: seeds_json_scan.py
 */
#include "scan_checks.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct scanner *scanner = scanner_new(1);
    REQUIRE(scanner != NULL);
    int64_t spans = scan_twice(scanner, SCAN_JSON, data, size);

    /* Space after it changes nothing, and nothing else may follow. */
    uint8_t *longer = copy_of(data, size, 1);
    longer[size] = '\n';
    REQUIRE(scan(scanner, SCAN_JSON, longer, size + 1) == spans);
    longer[size] = '}';
    if (spans >= 0)
        REQUIRE(scan(scanner, SCAN_JSON, longer, size + 1) == SCAN_MALFORMED);
    free(longer);

    /* A share of the spans is rejected: never more than there are, and the rest counts. */
    struct scan_counts before, after;
    int64_t rejected;
    scanner_counts(scanner, &before);
    int64_t all =
        scanner_request_partly(scanner, SCAN_JSON, data, size, UINT64_C(1) << 31, 1, &rejected);
    scanner_counts(scanner, &after);
    REQUIRE(all == spans);
    if (spans >= 0) {
        REQUIRE(rejected == spans / 2);
        REQUIRE(after.spans - before.spans == (uint64_t)(spans - rejected));
    }
    scanner_free(scanner);
    return 0;
}
