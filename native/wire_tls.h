/* TLS between a connection and its socket, on the platform's OpenSSL: what sendmsg and recv are in
 * the clear. Built where pkg-config finds it (BLASTER_TLS); without it wire_tls_new fails.
 *
 * Plaintext is copied into records and counts as sent once it is: it may have left from then on.
 * Both directions go over memory, so that a record never waits for a socket within OpenSSL.
 */
#ifndef BLASTER_WIRE_TLS_H
#define BLASTER_WIRE_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

#ifdef BLASTER_TLS
enum { WIRE_TLS_KNOWN = 1 };
#else
enum { WIRE_TLS_KNOWN = 0 };
#endif

/* Paths of PEM files, or NULL: no `ca` are the system's authorities. `host` is the name or the
 * address that the certificate must be for; without `verify` it may be anybody's. */
struct wire_tls_options {
    const char *host, *ca, *certificate, *key;
    bool verify;
};

struct wire_tls;      /* what all connections share */
struct wire_tls_link; /* one connection's */

/* NULL: *error says why. */
struct wire_tls *wire_tls_new(const struct wire_tls_options *options, char *error, size_t room);
void wire_tls_free(struct wire_tls *tls);

/* NULL when memory is short. */
struct wire_tls_link *wire_tls_begin(struct wire_tls *tls);
/* Says farewell on the socket, if that can be done at once; frees the link. */
void wire_tls_end(struct wire_tls_link *link, int fd);

/* As sendmsg, bytes of plaintext: -1 with EAGAIN while the handshake goes on, or while the socket
 * is full. */
ssize_t wire_tls_send(struct wire_tls_link *link, int fd, const struct iovec *iov, size_t count);

/* As recv; `room` must be WIRE_TLS_ROOM at least. Afterwards nothing that came is left unread. */
enum { WIRE_TLS_ROOM = 48000 };
ssize_t wire_tls_recv(struct wire_tls_link *link, int fd, void *to, size_t room);

/* Records wait for the socket. */
bool wire_tls_pending(const struct wire_tls_link *link);

/* What is wrong with the connection, where -1 came with EPROTO. */
const char *wire_tls_reason(const struct wire_tls_link *link);

#endif
