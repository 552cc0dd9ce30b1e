#include "wire_client_private.h"

#include <stdio.h>
#include <string.h>

enum { REFUSALS_MAX = 5, GRPC_STATUSES = 17 };
static const char *const grpc_names[GRPC_STATUSES] = {
    [GRPC_OK] = "OK",
    [GRPC_CANCELLED] = "CANCELLED",
    [GRPC_UNKNOWN] = "UNKNOWN",
    [GRPC_INVALID_ARGUMENT] = "INVALID_ARGUMENT",
    [GRPC_DEADLINE_EXCEEDED] = "DEADLINE_EXCEEDED",
    [GRPC_NOT_FOUND] = "NOT_FOUND",
    [GRPC_ALREADY_EXISTS] = "ALREADY_EXISTS",
    [GRPC_PERMISSION_DENIED] = "PERMISSION_DENIED",
    [GRPC_RESOURCE_EXHAUSTED] = "RESOURCE_EXHAUSTED",
    [GRPC_FAILED_PRECONDITION] = "FAILED_PRECONDITION",
    [GRPC_ABORTED] = "ABORTED",
    [GRPC_OUT_OF_RANGE] = "OUT_OF_RANGE",
    [GRPC_UNIMPLEMENTED] = "UNIMPLEMENTED",
    [GRPC_INTERNAL] = "INTERNAL",
    [GRPC_UNAVAILABLE] = "UNAVAILABLE",
    [GRPC_DATA_LOSS] = "DATA_LOSS",
    [GRPC_UNAUTHENTICATED] = "UNAUTHENTICATED",
};

static struct link *link_of(struct wire_client *client, const struct wire_stream *hello) {
    for (size_t i = 0; i < client->link_count; i++)
        if (&client->links[i].hello_stream == hello)
            return &client->links[i];
    return NULL;
}

void client_greeted(struct wire_client *client, const struct wire_stream *hello,
                    const struct wire_end *end) {
    struct link *link = link_of(client, hello);
    int length = (int)min64((int64_t)end->message_length, 100);
    link->hello = HELLO_ANSWERED;
    if (!client->connecting)
        return;
    const char *message = end->message;
    switch (end->status) {
    case GRPC_OK:
    case GRPC_DEADLINE_EXCEEDED:  /* it is slow */
    case GRPC_INVALID_ARGUMENT:   /* it minds that the request is empty */
    case GRPC_RESOURCE_EXHAUSTED: /* a backend that is busy is a backend */
    case GRPC_ABORTED:
    case GRPC_UNAVAILABLE:
        if (end->grpc)
            return;
        snprintf(client->reason, sizeof client->reason, "a proxy answers %d: %s",
                 hello->http_status, grpc_names[end->status]);
        break;
    case GRPC_UNIMPLEMENTED:
        snprintf(client->reason, sizeof client->reason,
                 end->grpc ? "it speaks gRPC but does not take OTLP traces: %.*s"
                           : "it speaks HTTP/2 but not gRPC: %.*s",
                 length, message);
        break;
    case WIRE_REFUSED_STREAM:
        if (++link->refusals < REFUSALS_MAX) {
            link->hello = HELLO_NONE; /* it was not processed: asked once more */
            return;
        }
        snprintf(client->reason, sizeof client->reason, "it refuses every stream (REFUSED_STREAM)");
        break;
    case WIRE_CONNECTION_LOST:
        return; /* the connection's end says more */
    case WIRE_INVALID_RESPONSE:
    case WIRE_STREAM_RESET:
        snprintf(client->reason, sizeof client->reason,
                 hello->content == 1 ? "its answer to an empty export is invalid: %.*s"
                                     : "it speaks HTTP/2 but not gRPC: %.*s",
                 length, message);
        break;
    default:
        snprintf(client->reason, sizeof client->reason,
                 end->grpc ? "it refuses an empty request with %s: %.*s"
                           : "it speaks HTTP/2 but not gRPC: %.0s%.*s",
                 end->status < GRPC_STATUSES ? grpc_names[end->status] : "an unknown status",
                 length, message);
    }
    client->failed = true;
}

/* Says why the first connection that is not there yet is missing. */
static void describe_missing(struct wire_client *client) {
    for (size_t i = 0; i < client->connections; i++) {
        const struct link *link = &client->links[i];
        char what[WIRE_REASON_MAX];
        if (link->hello == HELLO_ANSWERED)
            continue;
        if (link->conn.state == WIRE_CONNECTING)
            snprintf(what, sizeof what, "it does not answer");
        else if (link->conn.state == WIRE_GREETING)
            wire_conn_describe(&link->conn, what, sizeof what);
        else
            snprintf(what, sizeof what, "it speaks HTTP/2 but does not answer an Export");
        snprintf(client->reason, sizeof client->reason, "%s", what);
        return;
    }
}

/* One address; 0 when every connection's greeting was answered. */
static int try_address(struct wire_client *client, int64_t until) {
    client->failed = false;
    client->reason[0] = 0;
    client->now = client_clock();
    for (size_t i = 0; i < client->connections && !client->failed; i++)
        link_open(client, &client->links[i]);
    while (!client->failed) {
        size_t answered = 0;
        client->now = client_clock();
        client_expire(client);
        for (size_t i = 0; i < client->connections; i++) {
            struct link *link = &client->links[i];
            if (link->hello == HELLO_NONE && wire_conn_takes(&link->conn)) {
                struct wire_stream *hello = &link->hello_stream;
                *hello = (struct wire_stream){.hello = true};
                link->hello = HELLO_SENT;
                wire_conn_open(&link->conn, hello);
            }
            answered += link->hello == HELLO_ANSWERED;
        }
        client_pump(client);
        if (client->failed)
            break;
        if (answered == client->connections)
            return 0;
        if (client->now >= until || client_stopped(client)) {
            describe_missing(client);
            client->failed = true;
            break;
        }
        client_sleep(client, client_next_event(client, until));
    }
    for (size_t i = 0; i < client->link_count; i++)
        if (client->links[i].conn.state != WIRE_FREE)
            link_lost(client, &client->links[i]);
    return 1;
}

int wire_client_connect(struct wire_client *client, int64_t until) {
    int result = 1;
    client->connecting = true;
    for (client->address = 0; client->address < client->address_count; client->address++) {
        result = try_address(client, until);
        if (result == 0)
            break;
    }
    client->connecting = false;
    if (client->address == client->address_count)
        client->address = 0;
    client->retry_at = 0;
    client->backoff = 0;
    return result;
}
