#include "receiver_head.h"

#include "h2_frame.h"
#include "unzstd.h"

#include <string.h>

enum { METHOD = 1, SCHEME = 2, PATH = 4, AUTHORITY = 8, CONTENT_TYPE = 16, LENGTH = 32 };

static const char EXPORT[] = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

static bool same(const uint8_t *bytes, size_t length, const char *text) {
    return length == strlen(text) && memcmp(bytes, text, length) == 0;
}

static bool starts(const uint8_t *bytes, size_t length, const char *text) {
    return length >= strlen(text) && memcmp(bytes, text, strlen(text)) == 0;
}

static void once(struct head *head, unsigned field) {
    head->malformed |= (head->seen & field) != 0;
    head->seen |= field;
}

static void read_pseudo(struct head *head, const nghttp2_nv *nv) {
    head->malformed |= head->regular; /* RFC 9113, 8.3 */
    if (same(nv->name, nv->namelen, ":method")) {
        once(head, METHOD);
        head->post = same(nv->value, nv->valuelen, "POST");
    } else if (same(nv->name, nv->namelen, ":path")) {
        once(head, PATH);
        head->export_path = same(nv->value, nv->valuelen, EXPORT);
    } else if (same(nv->name, nv->namelen, ":scheme")) {
        once(head, SCHEME);
    } else if (same(nv->name, nv->namelen, ":authority")) {
        once(head, AUTHORITY);
    } else {
        head->malformed = true;
    }
}

static int64_t read_number(const uint8_t *digits, size_t length) {
    int64_t number = 0;
    if (length == 0 || length > 18)
        return -1;
    for (size_t i = 0; i < length; i++) {
        if (digits[i] < '0' || digits[i] > '9')
            return -1;
        number = 10 * number + (digits[i] - '0');
    }
    return number;
}

/* RFC 9113, 8.2.2: what belongs to a connection has no place in HTTP/2. */
static bool of_connection(const nghttp2_nv *nv) {
    return same(nv->name, nv->namelen, "connection") ||
           same(nv->name, nv->namelen, "proxy-connection") ||
           same(nv->name, nv->namelen, "keep-alive") ||
           same(nv->name, nv->namelen, "transfer-encoding") ||
           same(nv->name, nv->namelen, "upgrade") ||
           (same(nv->name, nv->namelen, "te") && !same(nv->value, nv->valuelen, "trailers"));
}

static void read_regular(struct head *head, const nghttp2_nv *nv) {
    head->regular = true;
    if (!nghttp2_check_header_name(nv->name, nv->namelen) ||
        !nghttp2_check_header_value(nv->value, nv->valuelen) || of_connection(nv)) {
        head->malformed = true;
    } else if (same(nv->name, nv->namelen, "content-type")) {
        once(head, CONTENT_TYPE);
        head->grpc = same(nv->value, nv->valuelen, "application/grpc") ||
                     same(nv->value, nv->valuelen, "application/grpc+proto") ||
                     starts(nv->value, nv->valuelen, "application/grpc;");
    } else if (same(nv->name, nv->namelen, "grpc-encoding")) {
        if (same(nv->value, nv->valuelen, "gzip"))
            head->encoding = HEAD_GZIP;
        else if (UNZSTD_KNOWN && same(nv->value, nv->valuelen, "zstd"))
            head->encoding = HEAD_ZSTD;
        else
            head->encoding =
                same(nv->value, nv->valuelen, "identity") ? HEAD_IDENTITY : HEAD_OTHER_ENCODING;
    } else if (same(nv->name, nv->namelen, "content-length")) {
        once(head, LENGTH);
        head->content_length = read_number(nv->value, nv->valuelen);
        head->malformed |= head->content_length < 0;
    }
}

/* Past an integer with a prefix of some bits (RFC 7541, 5.1), which it stores as far as it is
 * small; 0: past the end. */
static size_t pass_integer(const uint8_t *block, size_t length, size_t at, int bits,
                           size_t *value) {
    if (at >= length)
        return 0;
    size_t most = ((size_t)1 << bits) - 1;
    *value = block[at++] & most;
    if (*value < most)
        return at;
    for (int shift = 0; at < length && shift <= 14; shift += 7) {
        *value += (size_t)(block[at] & 127) << shift;
        if (block[at++] < 128)
            return at;
    }
    return 0;
}

/* Past a string (RFC 7541, 5.2); 0: past the end. */
static size_t pass_string(const uint8_t *block, size_t length, size_t at) {
    size_t bytes = 0;
    at = pass_integer(block, length, at, 7, &bytes);
    return at != 0 && bytes <= length - at ? at + bytes : 0;
}

/* Does the block consist of fields that are indexed already or not to be indexed (RFC 7541, 6.1,
 * 6.2.2 and 6.2.3) and nothing else? Then it leaves the table as it was, and says the same again as
 * long as no other block comes between. */
static bool keeps_table(const uint8_t *block, size_t length) {
    for (size_t at = 0; at < length;) {
        size_t index = 0;
        uint8_t first = block[at];
        if (first >= 0x20 && first < 0x80)
            return false;
        at = pass_integer(block, length, at, first >= 0x80 ? 7 : 4, &index);
        if (first < 0x20 && at != 0 && index == 0)
            at = pass_string(block, length, at);
        if (first < 0x20 && at != 0)
            at = pass_string(block, length, at);
        if (at == 0)
            return false;
    }
    return true;
}

enum head_result head_read(struct head_reader *reader, const uint8_t *block, size_t length,
                           struct head *head) {
    if (length > 0 && length == reader->repeated_length &&
        memcmp(block, reader->repeated, length) == 0) {
        *head = reader->head;
        return HEAD_READ;
    }
    reader->repeated_length = 0;
    if (length <= HEAD_REPEATED && keeps_table(block, length)) {
        memcpy(reader->repeated, block, length);
        reader->repeated_length = length;
    }
    *head = (struct head){.content_length = -1};
    for (;;) {
        nghttp2_nv nv;
        int flags = 0;
        ssize_t used = nghttp2_hd_inflate_hd2(reader->inflater, &nv, &flags, block, length, 1);
        if (used < 0)
            return HEAD_BAD_CODE;
        block += used;
        length -= (size_t)used;
        if (flags & NGHTTP2_HD_INFLATE_EMIT) {
            head->size += nv.namelen + nv.valuelen + H2_FIELD_OVERHEAD;
            if (head->size > HEAD_SIZE_MAX)
                return HEAD_TOO_LARGE;
            if (nv.namelen > 0 && nv.name[0] == ':')
                read_pseudo(head, &nv);
            else
                read_regular(head, &nv);
        }
        if (flags & NGHTTP2_HD_INFLATE_FINAL)
            break;
    }
    nghttp2_hd_inflate_end_headers(reader->inflater);
    reader->head = *head;
    return HEAD_READ;
}

bool head_is_request(const struct head *head) {
    unsigned needed = METHOD | SCHEME | PATH;
    return !head->malformed && (head->seen & needed) == needed;
}

bool head_is_trailers(const struct head *head) {
    return !head->malformed && (head->seen & (METHOD | SCHEME | PATH | AUTHORITY)) == 0;
}

bool head_reader_init(struct head_reader *reader) {
    memset(reader, 0, sizeof *reader);
    return nghttp2_hd_inflate_new(&reader->inflater) == 0;
}

void head_reader_clear(struct head_reader *reader) {
    if (reader->inflater != NULL)
        nghttp2_hd_inflate_del(reader->inflater);
    memset(reader, 0, sizeof *reader);
}
