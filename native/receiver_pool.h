/* Buffers in which messages that arrive in pieces are put together.
 *
 * Bounded by the memory that was really written to, not by what senders announce: a peer that
 * promises 4 MiB and sends one byte costs one page. Buffers are used again, last one first, while
 * the caches still hold them. */
#ifndef BLASTER_RECEIVER_POOL_H
#define BLASTER_RECEIVER_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { POOL_CLASSES = 20 }; /* 64 KiB, 128 KiB ... 32 GiB: more than any message */

struct message_buffer {
    struct message_buffer *next;
    size_t mapped;   /* bytes of address space, this header included */
    size_t capacity; /* bytes of data */
    size_t touched;  /* bytes of the mapping that were ever written to, and so take memory */
    uint8_t *data;
};

struct message_pool {
    struct message_buffer *idle[POOL_CLASSES];
    size_t budget;     /* the most that may be committed */
    size_t committed;  /* bytes touched in all buffers, idle or not */
    size_t idle_bytes; /* those of them in idle buffers */
    bool needed;       /* a buffer was taken since the last pool_tick */
};

void pool_init(struct message_pool *pool, size_t budget);
void pool_clear(struct message_pool *pool); /* frees the idle buffers */

/* To be called now and then: frees the idle buffers when none was needed since the last time. */
void pool_tick(struct message_pool *pool);

/* A buffer for a message of length bytes; NULL when memory is short, or the budget used up. */
struct message_buffer *pool_take(struct message_pool *pool, size_t length);

/* To be called before the first `filled` bytes are relied upon; false when that would take more
 * memory than the budget. */
bool pool_touch(struct message_pool *pool, struct message_buffer *buffer, size_t filled);

void pool_give(struct message_pool *pool, struct message_buffer *buffer);

#endif
