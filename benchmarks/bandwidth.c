/* Sums a buffer with several threads and reports how fast it was read. Read-only: no stores compete for the bus.
   In: buffer (64-byte aligned), bytes (multiple of 512 * threads), threads. Out: GB/s of one pass. */
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

typedef int64_t lanes __attribute__((vector_size(64)));

#ifndef AHEAD
#define AHEAD 4096
#endif

struct part {
    const char *from;
    size_t bytes;
    int64_t sum;
};

static void *sum_part(void *argument) {
    struct part *part = argument;
    /* Eight independent sums keep enough loads in flight. */
    lanes sums[8] = {{0}};
    const char *end = part->from + part->bytes;
    /* Hardware prefetchers stop at the end of a page; asking ahead, past the end too (harmless), goes on. */
    for (const char *at = part->from; at < end; at += 512)
        for (int i = 0; i < 8; i++) {
            __builtin_prefetch(at + 64 * i + AHEAD, 0, 3);
            sums[i] += *(const lanes *)(at + 64 * i);
        }
    int64_t total = 0;
    for (int i = 0; i < 8; i++)
        for (int j = 0; j < 8; j++) total += sums[i][j];
    part->sum = total;
    return NULL;
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

double read_bandwidth(const char *buffer, size_t bytes, int threads, int64_t *sum) {
    pthread_t ids[64];
    struct part parts[64];
    if (threads < 1 || threads > 64) return -1.0;
    size_t share = bytes / (size_t)threads / 512 * 512;
    double start = seconds();
    for (int i = 0; i < threads; i++) {
        parts[i] = (struct part){buffer + share * (size_t)i, share, 0};
        if (i > 0 && pthread_create(&ids[i], NULL, sum_part, &parts[i]) != 0) return -1.0;
    }
    sum_part(&parts[0]);
    *sum = parts[0].sum;
    for (int i = 1; i < threads; i++) {
        pthread_join(ids[i], NULL);
        *sum += parts[i].sum;
    }
    return (double)(share * (size_t)threads) / (seconds() - start) / 1e9;
}
