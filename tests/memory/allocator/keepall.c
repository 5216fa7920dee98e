/* An allocator that never gives memory out twice: whatever was left in memory stays there to be found. For LD_PRELOAD,
 * with PYTHONMALLOC=malloc. Memory comes from anonymous mappings and only grows. What is freed is overwritten only if the
 * process asks for that by mallopt(M_PERTURB), as with glibc's own; with KEEPALL_STRICT in the environment, never. */
#define _GNU_SOURCE
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define CHUNK ((size_t)64 << 20)
#define HEADER 16

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uintptr_t next_free, chunk_end;
static volatile int pattern;

static void *take(size_t size, size_t alignment) {
    if (size > SIZE_MAX / 2 || alignment > CHUNK) {
        errno = ENOMEM;
        return NULL;
    }
    if (alignment < HEADER) alignment = HEADER;
    pthread_mutex_lock(&lock);
    uintptr_t at = (next_free + HEADER + alignment - 1) & ~(uintptr_t)(alignment - 1);
    if (next_free == 0 || at + size > chunk_end) {
        size_t wanted = size + alignment + HEADER;
        if (wanted < CHUNK) wanted = CHUNK;
        void *fresh = mmap(NULL, wanted, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (fresh == MAP_FAILED) {
            pthread_mutex_unlock(&lock);
            errno = ENOMEM;
            return NULL;
        }
        next_free = (uintptr_t)fresh;
        chunk_end = next_free + wanted;
        at = (next_free + HEADER + alignment - 1) & ~(uintptr_t)(alignment - 1);
    }
    next_free = at + size;
    pthread_mutex_unlock(&lock);
    ((size_t *)at)[-1] = size;
    return (void *)at;
}

static size_t size_of(const void *block) { return ((const size_t *)block)[-1]; }

void *malloc(size_t size) { return take(size, HEADER); }

void free(void *block) {
    if (block != NULL && pattern) memset(block, pattern, size_of(block));
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
    return take(whole, HEADER); /* fresh mappings are zero */
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
