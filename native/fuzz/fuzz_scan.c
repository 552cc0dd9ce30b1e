/* libFuzzer over scanner_request: reads nothing outside the input (ASan), and its counts add up.
 *
 * sources: scan.c json_scan.c idset.c
 * seeds: seeds_scan.py
 */
#include "scan_checks.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct scanner *scanner = scanner_new(1);
    REQUIRE(scanner != NULL);
    int64_t spans = scan_twice(scanner, SCAN_PROTOBUF, data, size);

    /* Two requests one after the other are one request with the spans of both. */
    uint8_t *twice = copy_of(data, size, size);
    if (size != 0)
        memcpy(twice + size, data, size);
    int64_t both = scan(scanner, SCAN_PROTOBUF, twice, 2 * size);
    if (spans >= 0)
        REQUIRE(both == 2 * spans);
    free(twice);
    scanner_free(scanner);
    return 0;
}
