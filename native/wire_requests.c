#include "wire_client_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- waiting for a connection ---- */

void client_wait_last(struct wire_client *client, struct wire_stream *stream) {
    stream->next = NULL;
    *client->waiting_tail = stream;
    client->waiting_tail = &stream->next;
}

void client_wait_first(struct wire_client *client, struct wire_stream *stream) {
    stream->next = client->waiting;
    if (client->waiting == NULL)
        client->waiting_tail = &stream->next;
    client->waiting = stream;
}

void client_wait_no_more(struct wire_client *client, const struct wire_stream *stream) {
    struct wire_stream **link = stream->paused ? &client->paused : &client->waiting;
    while (*link != stream)
        link = &(*link)->next;
    *link = stream->next;
    if (*link == NULL && !stream->paused)
        client->waiting_tail = link;
}

/* The first refusal is answered at once; a peer that refuses on and on is not asked without end. */
void client_send_again(struct wire_client *client, struct wire_stream *stream) {
    const uint32_t before = stream->refusals++;
    stream->left = true;
    if (before == 0) {
        client_wait_first(client, stream);
        return;
    }
    const int64_t pause = (int64_t)MILLISECOND << (before < 7 ? before - 1 : 6);
    stream->resume_at = client->now + pause;
    stream->paused = true;
    stream->next = client->paused;
    client->paused = stream;
}

void client_resume(struct wire_client *client) {
    for (struct wire_stream **link = &client->paused; *link != NULL;) {
        struct wire_stream *stream = *link;
        if (stream->resume_at > client->now) {
            link = &stream->next;
            continue;
        }
        *link = stream->next;
        stream->paused = false;
        client_wait_last(client, stream);
    }
}

/* ---- ends ---- */

static void remember_message(struct wire_client *client, int status, const char *message,
                             size_t length) {
    if (client->messages[status] != NULL || length == 0)
        return;
    client->messages[status] = malloc(length);
    if (client->messages[status] == NULL)
        return;
    memcpy(client->messages[status], message, length);
    client->message_lengths[status] = length;
}

void client_finish(struct wire_client *client, struct wire_stream *stream,
                   const struct wire_end *end) {
    remember_message(client, end->status, end->message, end->message_length);
    client->outcomes[client->outcome_count++] = (struct wire_outcome){
        .scheduled = stream->scheduled,
        .sent = stream->sent,
        .done = client->now,
        .spans = stream->spans,
        .bytes = stream->length,
        .rejected = end->rejected,
        .status = end->status,
        .number = stream->number,
        .delay = end->retry_delay,
    };
    if (stream->older != NULL)
        stream->older->newer = stream->newer;
    else
        client->oldest = stream->newer;
    if (stream->newer != NULL)
        stream->newer->older = stream->older;
    else
        client->newest = stream->older;
    wire_stream_release(stream);
    stream->next = client->free;
    client->free = stream;
    client->in_flight--;
}

void client_finish_as(struct wire_client *client, struct wire_stream *stream, int status,
                      const char *message) {
    struct wire_end end = {status, 0, -1, false, message, strlen(message)};
    client_finish(client, stream, &end);
}

void client_finish_waiting(struct wire_client *client, struct wire_stream *stream,
                           const char *when) {
    char text[sizeof client->reason + 80];
    if (stream->refusals > 0)
        snprintf(text, sizeof text, "RST_STREAM with REFUSED_STREAM until %s", when);
    else
        snprintf(text, sizeof text, "no connection before %s%s%s", when,
                 client->reason[0] ? ": " : "", client->reason);
    client_wait_no_more(client, stream);
    client_finish_as(client, stream, stream->left ? WIRE_REFUSED_STREAM : WIRE_CONNECT_FAILED,
                     text);
}

void client_abandon(struct wire_client *client) {
    while (client->oldest != NULL) {
        struct wire_stream *stream = client->oldest;
        if (stream->conn != NULL) {
            wire_conn_cancel(stream->conn, stream);
            client_finish_as(client, stream, WIRE_ABANDONED, "no answer before the end of the run");
        } else {
            client_finish_waiting(client, stream, "the end of the run");
        }
    }
}

/* ---- beginnings ---- */

/* A slot with so much room, which nobody holds; NULL when memory is short. */
static struct slot *take_slot(struct wire_client *client, size_t length) {
    struct slot *slot = (struct slot *)client->spare;
    if (slot == NULL) {
        slot = calloc(1, sizeof *slot);
        if (slot == NULL)
            return NULL;
        slot->chunk.spare = &client->spare;
        slot->chunk.rewritable = true;
        slot->next = client->slots;
        client->slots = slot;
    } else {
        client->spare = slot->chunk.next;
    }
    if (slot->room >= length)
        return slot;
    free(slot->bytes);
    slot->bytes = malloc(length);
    slot->room = slot->bytes == NULL ? 0 : length;
    if (slot->bytes != NULL)
        return slot;
    slot->chunk.next = client->spare;
    client->spare = &slot->chunk;
    return NULL;
}

static void hold(struct wire_stream *stream, struct wire_chunk *chunk) {
    stream->chunk = chunk;
    stream->holding = true;
    chunk->holds++;
}

/* Recipes are small, and stay with their stream for the next. */
static bool reserve_recipe(struct wire_stream *stream, size_t length) {
    if (length <= stream->recipe_room)
        return true;
    void *grown = realloc(stream->recipe, length);
    if (grown == NULL)
        return false;
    stream->recipe = grown;
    stream->recipe_room = length;
    return true;
}

bool client_remake(struct wire_client *client, struct wire_stream *stream) {
    if (stream->holding)
        return true;
    struct slot *slot = take_slot(client, (size_t)stream->length);
    if (slot == NULL)
        return false;
    stream->source->write_again(stream->source->context, stream->recipe, slot->bytes);
    hold(stream, &slot->chunk);
    stream->data = slot->bytes;
    return true;
}

struct wire_stream *client_offer(struct wire_client *client, const struct wire_batches *batches,
                                 int64_t i) {
    struct wire_stream *stream = client->free;
    const struct batch_source *source = batches->source;
    stream->source = source;
    if (source != NULL) {
        const size_t length = source->length(source->context);
        struct slot *slot = take_slot(client, length);
        if (slot == NULL)
            return NULL;
        /* Held from here on, so that the slot is given back whatever happens. */
        hold(stream, &slot->chunk);
        if (!reserve_recipe(stream, source->recipe_length(source->context))) {
            wire_stream_release(stream);
            return NULL;
        }
        source->write(source->context, slot->bytes, stream->recipe);
        client->now = client_clock();
        stream->data = slot->bytes;
        stream->length = (int64_t)length;
    } else {
        hold(stream, batches->chunk);
        stream->data = batches->bytes + batches->offsets[i];
        stream->length = batches->offsets[i + 1] - batches->offsets[i];
    }
    client->free = stream->next;
    stream->conn = NULL;
    stream->compressed = client->compressed;
    stream->left = false;
    stream->refusals = 0;
    stream->paused = false;
    stream->scheduled = batches->scheduled[i];
    stream->spans = batches->spans[i];
    stream->number = batches->first + i;
    stream->sent = client->now;
    stream->deadline = client->now + client->timeout;

    stream->newer = NULL;
    stream->older = client->newest;
    if (client->newest != NULL)
        client->newest->newer = stream;
    else
        client->oldest = stream;
    client->newest = stream;
    client->in_flight++;

    const int64_t raise[] = {1, stream->spans, stream->length};
    for (size_t k = 0; k < 3 && !batches->again; k++)
        __atomic_store_n(&client->sent[k], client->sent[k] + raise[k], __ATOMIC_RELEASE);
    return stream;
}
