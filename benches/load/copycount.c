/* Counts bytes that memcpy and memmove copy in pieces of 4 KiB and more, in a mapped file. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static uint64_t fallback;
static uint64_t *count = &fallback;

__attribute__((constructor)) static void map_count(void) {
    const char *dir = getenv("COPYCOUNT_DIR");
    if (!dir) return;
    char path[4096];
    snprintf(path, sizeof path, "%s/copies.%d", dir, (int)getpid());
    int fd = open(path, O_RDWR | O_CREAT, 0644);
    if (fd < 0 || ftruncate(fd, 8) != 0) return;
    void *map = mmap(NULL, 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (map != MAP_FAILED) count = map;
}

static void note(size_t n) {
    if (n >= 4096) __atomic_fetch_add(count, n, __ATOMIC_RELAXED);
}

void *memmove(void *to, const void *from, size_t n) {
    note(n);
    void *end = to;
    const unsigned char *source = from;
    if ((uintptr_t)to - (uintptr_t)from >= n) {
        __asm__ volatile("rep movsb" : "+D"(end), "+S"(source), "+c"(n) : : "memory");
    } else {
        unsigned char *target = to;
        while (n > 0) {
            n--;
            __asm__ volatile("" ::: "memory");
            target[n] = source[n];
        }
    }
    return to;
}

void *memcpy(void *to, const void *from, size_t n) {
    note(n);
    void *end = to;
    __asm__ volatile("rep movsb" : "+D"(end), "+S"(from), "+c"(n) : : "memory");
    return to;
}
