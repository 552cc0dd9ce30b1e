#include "wire_tls.h"

#include <stdio.h>

#ifdef BLASTER_TLS

#include <errno.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum {
    STAGE = 128 * 1024, /* plaintext that is encrypted before it is written: eight full records */
    CIPHER = 30 * 1024, /* read at a time; with what is left of a record, less than WIRE_TLS_ROOM */
    RECORDS = STAGE + 32 * 1024, /* as it becomes, and what a handshake has to say */
    HOST_MAX = 256,
};

static const unsigned char H2[] = {2, 'h', '2'};

struct wire_tls {
    SSL_CTX *context;
    BIO_METHOD *records; /* writes into a link's `records` */
    char host[HOST_MAX];
    bool verify, address;
};

struct wire_tls_link {
    SSL *ssl;
    BIO *in, *out;    /* records from the peer and for it; the SSL's */
    size_t length;    /* bytes in `records` */
    size_t at;        /* and those of them that were written to the socket */
    bool established; /* the handshake is over */
    char reason[160];
    unsigned char stage[STAGE], records[RECORDS];
};

/* OpenSSL's own memory BIO clears its memory several times over: a tenth of what all costs. */
static int keep_records(BIO *bio, const char *data, int length) {
    struct wire_tls_link *link = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if ((size_t)length > RECORDS - link->length) {
        BIO_set_retry_write(bio);
        return -1;
    }
    memcpy(link->records + link->length, data, (size_t)length);
    link->length += (size_t)length;
    return length;
}

static long control_records(BIO *bio, int command, long number, void *pointer) {
    (void)bio, (void)number, (void)pointer;
    return command == BIO_CTRL_FLUSH;
}

static const char *openssl_reason(void) {
    unsigned long code = ERR_peek_last_error();
    const char *reason = code ? ERR_reason_error_string(code) : NULL;
    return reason != NULL ? reason : "an unknown error";
}

/* -1 with EPROTO. */
static ssize_t broken(struct wire_tls_link *link, const char *what) {
    long verified = SSL_get_verify_result(link->ssl);
    if (what == NULL && verified != X509_V_OK && !link->established)
        snprintf(link->reason, sizeof link->reason, "TLS: its certificate is not trusted: %s",
                 X509_verify_cert_error_string(verified));
    else
        snprintf(link->reason, sizeof link->reason, "TLS: %s",
                 what != NULL ? what : openssl_reason());
    ERR_clear_error();
    errno = EPROTO;
    return -1;
}

struct wire_tls *wire_tls_new(const struct wire_tls_options *options, char *error, size_t room) {
    const char *what = "no memory", *path = "";
    struct wire_tls *tls = calloc(1, sizeof *tls);
    if (tls == NULL || strlen(options->host) >= HOST_MAX)
        goto fail;
    ERR_clear_error();
    snprintf(tls->host, sizeof tls->host, "%s", options->host);
    tls->verify = options->verify;
    tls->context = SSL_CTX_new(TLS_client_method());
    if (tls->context == NULL)
        goto fail;
    SSL_CTX_set_min_proto_version(tls->context, TLS1_2_VERSION);
    SSL_CTX_set_options(tls->context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    if (SSL_CTX_set_alpn_protos(tls->context, H2, sizeof H2) != 0)
        goto fail;
    tls->records = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "records");
    if (tls->records == NULL || BIO_meth_set_write(tls->records, keep_records) != 1 ||
        BIO_meth_set_ctrl(tls->records, control_records) != 1)
        goto fail;
    what = NULL;
    if (options->ca != NULL) {
        path = options->ca;
        if (SSL_CTX_load_verify_locations(tls->context, path, NULL) != 1)
            goto fail;
    } else if (options->verify && SSL_CTX_set_default_verify_paths(tls->context) != 1) {
        goto fail;
    }
    if (options->certificate != NULL) {
        path = options->certificate;
        if (SSL_CTX_use_certificate_chain_file(tls->context, path) != 1)
            goto fail;
        path = options->key != NULL ? options->key : options->certificate;
        if (SSL_CTX_use_PrivateKey_file(tls->context, path, SSL_FILETYPE_PEM) != 1 ||
            SSL_CTX_check_private_key(tls->context) != 1)
            goto fail;
    }
    SSL_CTX_set_verify(tls->context, options->verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
    /* An intermediate CA in the bundle is trusted without its root, as grpcio does. */
    X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(tls->context), X509_V_FLAG_PARTIAL_CHAIN);
    return tls;
fail:
    snprintf(error, room, "%s%s%s", path, path[0] ? ": " : "",
             what != NULL ? what : openssl_reason());
    ERR_clear_error();
    wire_tls_free(tls);
    return NULL;
}

void wire_tls_free(struct wire_tls *tls) {
    if (tls == NULL)
        return;
    SSL_CTX_free(tls->context);
    BIO_meth_free(tls->records);
    free(tls);
}

/* Whom we want to speak to: an address or a name, which SNI tells, too (RFC 6066, 3). */
static int expect(SSL *ssl, const struct wire_tls *tls) {
    X509_VERIFY_PARAM *wanted = SSL_get0_param(ssl);
    if (X509_VERIFY_PARAM_set1_ip_asc(wanted, tls->host) == 1)
        return 1;
    ERR_clear_error();
    if (SSL_set_tlsext_host_name(ssl, tls->host) != 1)
        return 0;
    X509_VERIFY_PARAM_set_hostflags(wanted, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return SSL_set1_host(ssl, tls->host);
}

struct wire_tls_link *wire_tls_begin(struct wire_tls *tls) {
    struct wire_tls_link *link = malloc(sizeof *link);
    if (link == NULL)
        return NULL;
    link->length = link->at = 0;
    link->established = false;
    link->reason[0] = 0;
    link->ssl = SSL_new(tls->context);
    link->in = BIO_new(BIO_s_mem());
    link->out = BIO_new(tls->records);
    if (link->ssl == NULL || link->in == NULL || link->out == NULL || !expect(link->ssl, tls)) {
        BIO_free(link->in);
        BIO_free(link->out);
        SSL_free(link->ssl);
        free(link);
        ERR_clear_error();
        return NULL;
    }
    BIO_set_data(link->out, link);
    BIO_set_init(link->out, 1);
    SSL_set_bio(link->ssl, link->in, link->out);
    SSL_set_connect_state(link->ssl);
    return link;
}

bool wire_tls_pending(const struct wire_tls_link *link) { return link->length > link->at; }

/* Writes the records that wait: 1, 0 when the socket is full, -1 with errno. */
static int flush(struct wire_tls_link *link, int fd) {
    while (link->at < link->length) {
        ssize_t sent = send(fd, link->records + link->at, link->length - link->at,
                            MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -1;
        link->at += (size_t)sent;
    }
    link->length = link->at = 0;
    return 1;
}

/* Goes on with the handshake as far as what came allows. 1: it is over; 0; -1 with EPROTO. */
static int shake(struct wire_tls_link *link) {
    const unsigned char *protocol = NULL;
    unsigned int length = 0;
    if (link->established)
        return 1;
    ERR_clear_error();
    int result = SSL_do_handshake(link->ssl);
    if (result != 1) {
        int why = SSL_get_error(link->ssl, result);
        return why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? 0
                                                                         : (int)broken(link, NULL);
    }
    SSL_get0_alpn_selected(link->ssl, &protocol, &length);
    if (length != 2 || memcmp(protocol, "h2", 2) != 0)
        return (int)broken(link, "it does not take HTTP/2 (ALPN h2)");
    link->established = true;
    return 1;
}

ssize_t wire_tls_send(struct wire_tls_link *link, int fd, const struct iovec *iov, size_t count) {
    int ready = shake(link);
    int free_socket = flush(link, fd); /* an alert, where the handshake failed */
    if (ready < 0) {
        errno = EPROTO;
        return -1;
    }
    if (free_socket < 0)
        return -1;
    if (ready == 0 || free_socket == 0) {
        errno = EAGAIN;
        return -1;
    }
    size_t length = 0;
    for (size_t i = 0; i < count && length < STAGE; i++) {
        size_t part = iov[i].iov_len < STAGE - length ? iov[i].iov_len : STAGE - length;
        memcpy(link->stage + length, iov[i].iov_base, part);
        length += part;
    }
    if (length == 0)
        return 0;
    ERR_clear_error();
    int taken = SSL_write(link->ssl, link->stage, (int)length);
    if (taken <= 0)
        return broken(link, NULL);
    if (flush(link, fd) < 0 && link->at == 0) {
        link->length = 0; /* nothing of it has left, and nothing of it will */
        return -1;
    }
    return taken; /* some of it has left: what is wrong is said at the next call */
}

ssize_t wire_tls_recv(struct wire_tls_link *link, int fd, void *to, size_t room) {
    char cipher[CIPHER];
    ssize_t got = recv(fd, cipher, sizeof cipher, MSG_DONTWAIT);
    if (got <= 0)
        return got;
    if (BIO_write(link->in, cipher, (int)got) != got)
        return broken(link, "no memory");
    int ready = shake(link);
    size_t total = 0;
    while (ready == 1 && total < room) {
        ERR_clear_error();
        int length = SSL_read(link->ssl, (char *)to + total, (int)(room - total));
        if (length <= 0) {
            int why = SSL_get_error(link->ssl, length);
            if (why == SSL_ERROR_ZERO_RETURN && total == 0)
                return 0;
            if (why != SSL_ERROR_ZERO_RETURN && why != SSL_ERROR_WANT_READ &&
                why != SSL_ERROR_WANT_WRITE)
                ready = (int)broken(link, NULL);
            break;
        }
        total += (size_t)length;
    }
    /* What the handshake, or an update of keys, has to say. */
    if (flush(link, fd) < 0 && total == 0 && ready >= 0)
        return -1;
    if (total > 0)
        return (ssize_t)total;
    errno = ready < 0 ? EPROTO : EAGAIN;
    return -1;
}

void wire_tls_end(struct wire_tls_link *link, int fd) {
    if (link == NULL)
        return;
    ERR_clear_error();
    if (link->established && link->reason[0] == 0)
        SSL_shutdown(link->ssl);
    (void)flush(link, fd);
    ERR_clear_error();
    SSL_free(link->ssl);
    free(link);
}

const char *wire_tls_reason(const struct wire_tls_link *link) { return link->reason; }

#else

struct wire_tls *wire_tls_new(const struct wire_tls_options *options, char *error, size_t room) {
    (void)options;
    snprintf(error, room, "built without OpenSSL");
    return NULL;
}
void wire_tls_free(struct wire_tls *tls) { (void)tls; }
struct wire_tls_link *wire_tls_begin(struct wire_tls *tls) {
    (void)tls;
    return NULL;
}
void wire_tls_end(struct wire_tls_link *link, int fd) { (void)link, (void)fd; }
ssize_t wire_tls_send(struct wire_tls_link *link, int fd, const struct iovec *iov, size_t count) {
    (void)link, (void)fd, (void)iov, (void)count;
    return -1;
}
ssize_t wire_tls_recv(struct wire_tls_link *link, int fd, void *to, size_t room) {
    (void)link, (void)fd, (void)to, (void)room;
    return -1;
}
bool wire_tls_pending(const struct wire_tls_link *link) {
    (void)link;
    return false;
}
const char *wire_tls_reason(const struct wire_tls_link *link) {
    (void)link;
    return "";
}

#endif
