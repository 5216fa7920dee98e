/* Counts many patterns in one pass: by a hash of the first eight bytes, then by comparison. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define BITS 16

static uint32_t hash_of(const uint8_t *at) {
    uint64_t first;
    memcpy(&first, at, sizeof first);
    return (uint32_t)((first * 0x9E3779B97F4A7C15u) >> (64 - BITS));
}

/* `counts[k]` grows by how often pattern k begins at one of the first `starts` of the `size` bytes. Each pattern has at
 * least eight bytes. -1: no memory. */
int scan_count(const uint8_t *data, size_t starts, size_t size, size_t patterns, const uint8_t *const *pattern,
               const size_t *length, uint64_t *counts) {
    static uint8_t known[1u << (BITS - 3)];
    static int32_t first[1u << BITS];
    int32_t *next = malloc((patterns + 1) * sizeof *next);
    if (next == NULL) return -1;
    memset(known, 0, sizeof known);
    memset(first, -1, sizeof first);
    for (size_t k = 0; k < patterns; k++) {
        uint32_t hash = hash_of(pattern[k]);
        known[hash >> 3] |= (uint8_t)(1u << (hash & 7));
        next[k] = first[hash];
        first[hash] = (int32_t)k;
    }
    size_t last = size < 8 ? 0 : size - 7;
    if (last > starts) last = starts;
    for (size_t at = 0; at < last; at++) {
        uint32_t hash = hash_of(data + at);
        if (!(known[hash >> 3] & (1u << (hash & 7)))) continue;
        for (int32_t k = first[hash]; k >= 0; k = next[k])
            if (length[k] <= size - at && memcmp(data + at, pattern[k], length[k]) == 0) counts[k]++;
    }
    free(next);
    return 0;
}
