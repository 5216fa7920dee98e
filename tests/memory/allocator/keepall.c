/* An allocator that never gives memory out twice: whatever was left in memory stays there to be found. For LD_PRELOAD,
 * with PYTHONMALLOC=malloc. Memory comes from anonymous mappings and addresses are used once. What is freed is overwritten
 * only if the process asks for that by mallopt(M_PERTURB), as with glibc's own; with KEEPALL_STRICT in the environment,
 * never. A page on which every block was freed, and so overwritten, holds nothing to be found: it goes back to the kernel,
 * so that a long run fits into memory. Without the overwriting every page stays. */
#define _GNU_SOURCE
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define CHUNK ((size_t)64 << 20)
#define PAGE ((size_t)4096)
#define HEADER 16

/* At the beginning of each chunk: on each of its pages, how many blocks there are that were not freed. */
struct chunk {
    uint16_t live[CHUNK / PAGE];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uintptr_t next_free, chunk_end;
static volatile int pattern;

static struct chunk *chunk_of(uintptr_t at) { return (struct chunk *)(at & ~(uintptr_t)(CHUNK - 1)); }
static size_t page_of(uintptr_t at) { return (at & (CHUNK - 1)) / PAGE; }

/* A mapping that begins at a multiple of CHUNK. */
static uintptr_t fresh(size_t size) {
    void *wide = mmap(NULL, size + CHUNK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (wide == MAP_FAILED) return 0;
    uintptr_t begin = ((uintptr_t)wide + CHUNK - 1) & ~(uintptr_t)(CHUNK - 1);
    if (begin > (uintptr_t)wide) munmap(wide, begin - (uintptr_t)wide);
    uintptr_t end = begin + size, wide_end = (uintptr_t)wide + size + CHUNK;
    if (wide_end > end) munmap((void *)end, wide_end - end);
    return begin;
}

static void *take(size_t size, size_t alignment) {
    if (size > SIZE_MAX / 2 || alignment > CHUNK / 2) {
        errno = ENOMEM;
        return NULL;
    }
    if (alignment < HEADER) alignment = HEADER;
    int large = size > CHUNK / 4;
    pthread_mutex_lock(&lock);
    uintptr_t at = (next_free + HEADER + alignment - 1) & ~(uintptr_t)(alignment - 1);
    if (large || next_free == 0 || at + size > chunk_end) {
        size_t whole = large ? (sizeof(struct chunk) + HEADER + alignment + size + PAGE - 1) & ~(PAGE - 1) : CHUNK;
        uintptr_t begin = fresh(whole);
        if (begin == 0) {
            pthread_mutex_unlock(&lock);
            errno = ENOMEM;
            return NULL;
        }
        at = (begin + sizeof(struct chunk) + HEADER + alignment - 1) & ~(uintptr_t)(alignment - 1);
        if (!large) chunk_end = begin + CHUNK;
    }
    if (!large) {
        next_free = at + size;
        struct chunk *chunk = chunk_of(at);
        for (size_t page = page_of(at - HEADER); page <= page_of(at + size - (size > 0)); page++) chunk->live[page]++;
    }
    ((size_t *)at)[-1] = size;
    pthread_mutex_unlock(&lock);
    return (void *)at;
}

static size_t size_of(const void *block) { return ((const size_t *)block)[-1]; }

void *malloc(size_t size) { return take(size, HEADER); }

void free(void *block) {
    if (block == NULL || !pattern) return;
    size_t size = size_of(block);
    memset(block, pattern, size);
    if (size > CHUNK / 4) return;
    uintptr_t at = (uintptr_t)block;
    pthread_mutex_lock(&lock);
    struct chunk *chunk = chunk_of(at);
    size_t empty = 0, from = 0;
    for (size_t page = page_of(at - HEADER); page <= page_of(at + size - (size > 0)); page++) {
        uintptr_t end = (uintptr_t)chunk + (page + 1) * PAGE;
        /* Not the page on which the next block may begin. */
        if (--chunk->live[page] == 0 && (chunk != chunk_of(next_free) || end <= next_free)) {
            if (empty++ == 0) from = page;
        } else if (empty) {
            madvise((char *)chunk + from * PAGE, empty * PAGE, MADV_DONTNEED);
            empty = 0;
        }
    }
    if (empty) madvise((char *)chunk + from * PAGE, empty * PAGE, MADV_DONTNEED);
    pthread_mutex_unlock(&lock);
}

int mallopt(int parameter, int value) {
    if (parameter == M_PERTURB && getenv("KEEPALL_STRICT") == NULL) pattern = value;
    return 1;
}

void *calloc(size_t count, size_t size) {
    size_t whole;
    if (__builtin_mul_overflow(count, size, &whole)) {
        errno = ENOMEM;
        return NULL;
    }
    return take(whole, HEADER); /* addresses are used once, and fresh mappings are zero */
}

void *realloc(void *block, size_t size) {
    if (block != NULL && size <= size_of(block)) return block;
    void *moved = take(size, HEADER);
    if (moved != NULL && block != NULL) {
        memcpy(moved, block, size_of(block));
        free(block);
    }
    return moved;
}

void *reallocarray(void *block, size_t count, size_t size) {
    size_t whole;
    if (__builtin_mul_overflow(count, size, &whole)) {
        errno = ENOMEM;
        return NULL;
    }
    return realloc(block, whole);
}

int posix_memalign(void **block, size_t alignment, size_t size) {
    if (alignment < sizeof(void *) || (alignment & (alignment - 1))) return EINVAL;
    *block = take(size, alignment);
    return *block == NULL ? ENOMEM : 0;
}

void *aligned_alloc(size_t alignment, size_t size) { return take(size, alignment); }
void *memalign(size_t alignment, size_t size) { return take(size, alignment); }
void *valloc(size_t size) { return take(size, 4096); }
size_t malloc_usable_size(void *block) { return block == NULL ? 0 : size_of(block); }
