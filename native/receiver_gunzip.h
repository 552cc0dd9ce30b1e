/* Decompresses gzip messages, never into more than a limit. */
#ifndef BLASTER_RECEIVER_GUNZIP_H
#define BLASTER_RECEIVER_GUNZIP_H

#include <stddef.h>
#include <stdint.h>
#include <zlib.h>

enum gunzip_result { GUNZIP_OK, GUNZIP_TOO_LONG, GUNZIP_BAD, GUNZIP_NO_MEMORY };

/* One decompressor, used again from message to message; starts zeroed. */
struct gunzip {
    z_stream stream;
    uint8_t *out; /* what the last message became; NULL before the first */
    size_t capacity;
    size_t length;
};

enum gunzip_result gunzip_message(struct gunzip *gunzip, const uint8_t *data, size_t length,
                                  size_t limit);
void gunzip_clear(struct gunzip *gunzip);

#endif
