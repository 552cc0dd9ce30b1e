#include "receiver_gunzip.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { GZIP_ONLY = 16 + MAX_WBITS };

/* The last byte of the buffer is one more than the limit: when it is written to, the message is
 * too long. The buffer is taken once; what no message reaches is never touched. */
static enum gunzip_result prepare(struct gunzip *gunzip, size_t limit) {
    if (gunzip->out != NULL && gunzip->capacity == limit + 1)
        return inflateReset(&gunzip->stream) == Z_OK ? GUNZIP_OK : GUNZIP_BAD;
    gunzip_clear(gunzip);
    uint8_t *out = malloc(limit + 1);
    if (out == NULL)
        return GUNZIP_NO_MEMORY;
    if (inflateInit2(&gunzip->stream, GZIP_ONLY) != Z_OK) {
        free(out);
        return GUNZIP_NO_MEMORY;
    }
    gunzip->out = out;
    gunzip->capacity = limit + 1;
    return GUNZIP_OK;
}

enum gunzip_result gunzip_message(struct gunzip *gunzip, const uint8_t *data, size_t length,
                                  size_t limit) {
    if (length > UINT_MAX || limit >= UINT_MAX)
        return GUNZIP_TOO_LONG;
    enum gunzip_result result = prepare(gunzip, limit);
    if (result != GUNZIP_OK)
        return result;
    z_stream *stream = &gunzip->stream;
    stream->next_in = (Bytef *)(uintptr_t)data;
    stream->avail_in = (uInt)length;
    stream->next_out = gunzip->out;
    stream->avail_out = (uInt)gunzip->capacity;
    for (;;) {
        int end = inflate(stream, Z_FINISH);
        if (stream->avail_out == 0)
            return GUNZIP_TOO_LONG;
        if (end != Z_STREAM_END)
            return end == Z_MEM_ERROR ? GUNZIP_NO_MEMORY : GUNZIP_BAD;
        if (stream->avail_in == 0)
            break;
        /* RFC 1952, 2.2: a gzip file is a series of members, one after the other. */
        if (inflateReset(stream) != Z_OK)
            return GUNZIP_BAD;
    }
    gunzip->length = gunzip->capacity - stream->avail_out;
    return GUNZIP_OK;
}

void gunzip_clear(struct gunzip *gunzip) {
    if (gunzip->out != NULL)
        inflateEnd(&gunzip->stream);
    free(gunzip->out);
    memset(gunzip, 0, sizeof *gunzip);
}
