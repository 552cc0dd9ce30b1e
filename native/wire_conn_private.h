/* What the files of a client's connection share beside its struct; its owner sees wire_conn.h.
 *
 *   wire_conn.c      the connection: made, started, closed; its streams by ID
 *   wire_output.c    frames and the burst in which they are written
 *   wire_input.c     frames of the peer
 *   wire_response.c  a response's message, and how streams end
 */
#ifndef BLASTER_WIRE_CONN_PRIVATE_H
#define BLASTER_WIRE_CONN_PRIVATE_H

#include "wire_conn.h"

/* ---- wire_conn.c ---- */

struct wire_stream *wire_stream_find(const struct wire_conn *conn, uint32_t id);
void wire_stream_insert(struct wire_conn *conn, struct wire_stream *stream);
void wire_stream_erase(struct wire_conn *conn, const struct wire_stream *stream);

/* ---- wire_output.c ---- */

/* Room for a control frame; NULL when there is none left, which ends the connection. */
uint8_t *wire_control(struct wire_conn *conn, size_t length);

/* For the connection's window. */
void wire_send_window_update(struct wire_conn *conn, uint32_t increment);
void wire_send_reset(struct wire_conn *conn, uint32_t stream, uint32_t code);

/* As sendmsg. */
ssize_t wire_write_pieces(struct wire_conn *conn, const struct iovec *pieces, size_t count);

/* All of the request was put into frames. */
bool wire_all_framed(const struct wire_stream *stream);

/* The burst holds the bytes of the stream that it points to. */
void wire_hold_in_burst(struct wire_conn *conn, struct wire_stream *stream);

/* The burst was written, or never will be. */
void wire_end_burst(struct wire_conn *conn);

/* ---- wire_response.c ---- */

/* Keeps the bytes of a response; NULL or what is wrong with them. */
const char *wire_response_take(struct wire_conn *conn, struct wire_stream *stream,
                               const uint8_t *bytes, size_t length);

/* The response is complete, with the fields of its trailers in `answer` or without any (NULL). */
void wire_response_end(struct wire_conn *conn, struct wire_stream *stream,
                       const struct wire_answer *answer);

/* The response is of no use. `over`: the peer has already ended the stream. */
void wire_response_invalid(struct wire_conn *conn, struct wire_stream *stream, bool over,
                           uint32_t code, const char *message);

/* Forgets the stream and tells the owner. how->message must not point into the stream's body. */
void wire_stream_end(struct wire_conn *conn, struct wire_stream *stream,
                     const struct wire_end *how);

#endif
