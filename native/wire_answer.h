/* What a peer says about one request: the fields of a gRPC response and its message.
 *
 * Knows nothing of frames or sockets. The protocol is "gRPC over HTTP2" (PROTOCOL-HTTP2.md).
 */
#ifndef BLASTER_WIRE_ANSWER_H
#define BLASTER_WIRE_ANSWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { WIRE_GRPC_NONE = -1, WIRE_GRPC_MALFORMED = -2 };
enum { WIRE_MESSAGE_MAX = 1024, WIRE_DETAILS_MAX = 8192 };

enum wire_encoding { WIRE_IDENTITY, WIRE_GZIP, WIRE_ZSTD, WIRE_OTHER_ENCODING };

/* The fields of one header block. */
struct wire_answer {
    int http_status;             /* 0: no :status */
    int grpc_status;             /* 0 to 16, or WIRE_GRPC_NONE, WIRE_GRPC_MALFORMED */
    int content;                 /* content-type: 1 application/grpc, -1 another, 0 none */
    enum wire_encoding encoding; /* grpc-encoding */
    bool regular;                /* a field that is not a pseudo-header came */
    bool malformed;              /* against RFC 9113, 8.2 and 8.3 */
    int64_t retry_delay; /* nanoseconds from RetryInfo in grpc-status-details-bin; -1: none */
    size_t message_length;
    char message[WIRE_MESSAGE_MAX]; /* grpc-message, percent-decoded, cut at this length */
};

/* Ready for the next header block. */
void wire_answer_reset(struct wire_answer *answer);

/* Takes one field. Unknown ones are ignored. */
void wire_answer_field(struct wire_answer *answer, const uint8_t *name, size_t name_length,
                       const uint8_t *value, size_t value_length);

/* The gRPC status for an HTTP status that came without grpc-status (http-grpc-status-mapping.md):
 * 400 INTERNAL, 401 UNAUTHENTICATED, 403 PERMISSION_DENIED, 404 UNIMPLEMENTED, 429, 502, 503 and
 * 504 UNAVAILABLE, any other UNKNOWN. */
int wire_http_to_grpc(int http_status);

/* Reads an ExportTraceServiceResponse's partial_success: how many spans were rejected and why
 * (`error` points into the message). 0, or -1 when the bytes are not such a message. */
int wire_partial_success(const uint8_t *message, size_t length, int64_t *rejected,
                         const uint8_t **error, size_t *error_length);

/* RetryInfo.retry_delay of a google.rpc.Status in nanoseconds; -1 when there is none. */
int64_t wire_retry_delay(const uint8_t *status, size_t length);

/* Decodes base64, padded or not; returns the length, or -1 when it is not base64 or too long. */
int64_t wire_base64(const uint8_t *text, size_t length, uint8_t *out, size_t room);

#endif
