/* Decompresses zstd messages, never into more than a limit and with no window beyond 8 MiB, which
 * decoders should take and need not go beyond (RFC 8878, 3.1.1.1.2).
 *
 * Built with libzstd where there is one (BLASTER_ZSTD); without it unzstd_known is 0. */
#ifndef BLASTER_UNZSTD_H
#define BLASTER_UNZSTD_H

#include "receiver_gunzip.h"

#ifdef BLASTER_ZSTD
enum { UNZSTD_KNOWN = 1 };
#else
enum { UNZSTD_KNOWN = 0 };
#endif

/* One decompressor, used again from message to message; starts zeroed. */
struct unzstd {
    void *context;
    uint8_t *out; /* what the last message became; NULL before the first */
    size_t capacity;
    size_t length;
};

enum gunzip_result unzstd_message(struct unzstd *unzstd, const uint8_t *data, size_t length,
                                  size_t limit);
void unzstd_clear(struct unzstd *unzstd);

#endif
