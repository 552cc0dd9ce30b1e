#ifndef _DEFAULT_SOURCE
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS, madvise */
#endif
#include "receiver_pool.h"

#include <string.h>
#include <sys/mman.h>

enum { SMALLEST = 1 << 16, HEADER = 64, PAGE = 4096, IDLE_MAX = 1 << 26 };

_Static_assert(sizeof(struct message_buffer) <= HEADER, "the header stands before the data");

void pool_init(struct message_pool *pool, size_t budget) {
    memset(pool, 0, sizeof *pool);
    pool->budget = budget;
}

static void discard(struct message_pool *pool, struct message_buffer *buffer) {
    pool->committed -= buffer->touched;
    munmap(buffer, buffer->mapped);
}

void pool_clear(struct message_pool *pool) {
    for (size_t i = 0; i < POOL_CLASSES; i++) {
        while (pool->idle[i] != NULL) {
            struct message_buffer *buffer = pool->idle[i];
            pool->idle[i] = buffer->next;
            pool->idle_bytes -= buffer->touched;
            discard(pool, buffer);
        }
    }
}

void pool_tick(struct message_pool *pool) {
    if (!pool->needed)
        pool_clear(pool);
    pool->needed = false;
}

static size_t class_of(size_t length) {
    size_t index = 0;
    while (index < POOL_CLASSES && ((size_t)SMALLEST << index) - HEADER < length)
        index++;
    return index;
}

/* Whether so many more bytes fit the budget, perhaps without the idle buffers. */
static bool affords(struct message_pool *pool, size_t more) {
    if (pool->committed + more > pool->budget)
        pool_clear(pool);
    return pool->committed + more <= pool->budget;
}

struct message_buffer *pool_take(struct message_pool *pool, size_t length) {
    size_t index = class_of(length);
    if (index >= POOL_CLASSES)
        return NULL;
    pool->needed = true;
    struct message_buffer *buffer = pool->idle[index];
    if (buffer != NULL) {
        pool->idle[index] = buffer->next;
        pool->idle_bytes -= buffer->touched;
        return buffer;
    }
    if (!affords(pool, PAGE)) /* its header is written to at once */
        return NULL;
    size_t mapped = (size_t)SMALLEST << index;
    buffer = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (buffer == MAP_FAILED)
        return NULL;
#ifdef MADV_NOHUGEPAGE
    madvise(buffer, mapped, MADV_NOHUGEPAGE); /* else one byte may commit 2 MiB */
#endif
    buffer->mapped = mapped;
    buffer->capacity = mapped - HEADER;
    buffer->touched = PAGE;
    buffer->data = (uint8_t *)buffer + HEADER;
    pool->committed += PAGE;
    return buffer;
}

bool pool_touch(struct message_pool *pool, struct message_buffer *buffer, size_t filled) {
    size_t end = (HEADER + filled + PAGE - 1) & ~(size_t)(PAGE - 1);
    if (end <= buffer->touched)
        return true;
    size_t more = end - buffer->touched;
    if (!affords(pool, more))
        return false;
    pool->committed += more;
    buffer->touched = end;
    return true;
}

void pool_give(struct message_pool *pool, struct message_buffer *buffer) {
    if (pool->idle_bytes + buffer->touched > IDLE_MAX) {
        discard(pool, buffer);
        return;
    }
    size_t index = class_of(buffer->capacity);
    buffer->next = pool->idle[index];
    pool->idle[index] = buffer;
    pool->idle_bytes += buffer->touched;
}
