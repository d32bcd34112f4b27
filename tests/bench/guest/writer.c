/* writer DISK MIB: writes 4 KiB at random places of a disk's last MIB, one after the other, for ever; about ten times
 * a second it says how many seconds it has been at it, and how many writes it has done. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 4096 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static uint64_t next(uint64_t *state) /* xorshift64 */
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    return *state ^= *state << 17;
}

int main(int count, char **words)
{
    void *memory;
    uint64_t state = 88172645463325252u, writes = 0;
    int disk = count == 3 ? open(words[1], O_WRONLY | O_DIRECT) : -1;
    if (disk < 0 || posix_memalign(&memory, BLOCK, BLOCK) != 0)
        return 1;
    uint64_t *block = memory, blocks = strtoul(words[2], NULL, 10) << 20 >> 12;
    off_t first = lseek(disk, 0, SEEK_END) - (off_t)(blocks * BLOCK);
    for (int i = 0; i < BLOCK / 8; i++)
        block[i] = next(&state);
    for (double begin = now(), said = begin;; writes++) {
        block[0] = writes;
        if (pwrite(disk, block, BLOCK, first + (off_t)(next(&state) % blocks * BLOCK)) != BLOCK)
            return 2;
        double t = now();
        if (t - said >= 0.1) {
            printf("%.3f %lu\n", t - begin, (unsigned long)writes);
            fflush(stdout);
            said = t;
        }
    }
}
