#include "unzstd.h"

#include <stdlib.h>
#include <string.h>

#ifdef BLASTER_ZSTD

#include <zstd.h>

enum { WINDOW_LOG_MAX = 23 };

/* The last byte of the buffer is one more than the limit: when it is written to, the message is
 * too long. */
static enum gunzip_result prepare(struct unzstd *unzstd, size_t limit) {
    if (unzstd->context == NULL) {
        unzstd->context = ZSTD_createDCtx();
        if (unzstd->context == NULL)
            return GUNZIP_NO_MEMORY;
        ZSTD_DCtx_setParameter(unzstd->context, ZSTD_d_windowLogMax, WINDOW_LOG_MAX);
    }
    if (unzstd->capacity != limit + 1) {
        free(unzstd->out);
        unzstd->capacity = 0;
        unzstd->out = malloc(limit + 1);
        if (unzstd->out == NULL)
            return GUNZIP_NO_MEMORY;
        unzstd->capacity = limit + 1;
    }
    ZSTD_DCtx_reset(unzstd->context, ZSTD_reset_session_only);
    return GUNZIP_OK;
}

enum gunzip_result unzstd_message(struct unzstd *unzstd, const uint8_t *data, size_t length,
                                  size_t limit) {
    if (limit == SIZE_MAX)
        return GUNZIP_TOO_LONG;
    enum gunzip_result result = prepare(unzstd, limit);
    if (result != GUNZIP_OK)
        return result;
    ZSTD_inBuffer in = {data, length, 0};
    ZSTD_outBuffer out = {unzstd->out, unzstd->capacity, 0};
    size_t left = 1; /* bytes that the decoder would like next; 0: a frame has ended */
    while (in.pos < in.size || left > 0) {
        size_t had = in.pos, made = out.pos;
        left = ZSTD_decompressStream(unzstd->context, &out, &in);
        if (ZSTD_isError(left))
            return GUNZIP_BAD;
        if (out.pos == out.size)
            return GUNZIP_TOO_LONG;
        if (in.pos == had && out.pos == made && left > 0)
            return GUNZIP_BAD; /* it ends within a frame */
    }
    unzstd->length = out.pos;
    return GUNZIP_OK;
}

void unzstd_clear(struct unzstd *unzstd) {
    ZSTD_freeDCtx(unzstd->context);
    free(unzstd->out);
    memset(unzstd, 0, sizeof *unzstd);
}

#else

enum gunzip_result unzstd_message(struct unzstd *unzstd, const uint8_t *data, size_t length,
                                  size_t limit) {
    (void)unzstd, (void)data, (void)length, (void)limit;
    return GUNZIP_BAD;
}

void unzstd_clear(struct unzstd *unzstd) { (void)unzstd; }

#endif
