/* What the header block of a gRPC call says: HPACK (RFC 7541) by nghttp2, and what RFC 9113,
 * section 8, and gRPC make of the fields. */
#ifndef BLASTER_RECEIVER_HEAD_H
#define BLASTER_RECEIVER_HEAD_H

#include <nghttp2/nghttp2.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    HEAD_SIZE_MAX = 1 << 16, /* of the fields, counted as in RFC 9113, 6.5.2 */
    HEAD_REPEATED = 256,
};

enum head_encoding { HEAD_IDENTITY, HEAD_GZIP, HEAD_ZSTD, HEAD_OTHER_ENCODING };

struct head {
    unsigned seen; /* which fields */
    size_t size;
    int64_t content_length; /* -1: not given */
    enum head_encoding encoding;
    bool malformed;
    bool regular;     /* a field that is no pseudo-header field came */
    bool post;        /* :method */
    bool export_path; /* :path is that of OTLP traces */
    bool grpc;        /* content-type */
};

/* One connection's decoder. A block that adds nothing to its table, as most clients send it call
 * after call, is remembered with what it says. */
struct head_reader {
    nghttp2_hd_inflater *inflater;
    struct head head;
    size_t repeated_length;
    uint8_t repeated[HEAD_REPEATED];
};

enum head_result { HEAD_READ, HEAD_BAD_CODE, HEAD_TOO_LARGE };

bool head_reader_init(struct head_reader *reader); /* false when memory is short */
void head_reader_clear(struct head_reader *reader);

/* Reads one whole block. After any other result than HEAD_READ the connection can't go on. */
enum head_result head_read(struct head_reader *reader, const uint8_t *block, size_t length,
                           struct head *head);

/* Is it well-formed at the start of a call, or as its trailers? RFC 9113, 8.1.1 */
bool head_is_request(const struct head *head);
bool head_is_trailers(const struct head *head);

#endif
