/*
 * A slow disk, by LD_PRELOAD: each fsync and fdatasync takes SLOW_SYNC_US microseconds longer.
 *
 *     gcc -O2 -shared -fPIC -o slow_sync.so slow_sync.c -ldl
 *     SLOW_SYNC_US=2000 LD_PRELOAD=./slow_sync.so program
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <time.h>

static struct timespec delay;
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);

__attribute__((constructor)) static void start(void)
{
    const char *text = getenv("SLOW_SYNC_US");
    long microseconds = text ? atol(text) : 0;

    delay.tv_sec = microseconds / 1000000;
    delay.tv_nsec = microseconds % 1000000 * 1000;
    real_fsync = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
}

static void wait_for_the_platter(void)
{
    struct timespec left = delay;

    while (nanosleep(&left, &left) == -1 && errno == EINTR)
        ;
}

int fsync(int fd)
{
    wait_for_the_platter();
    return real_fsync(fd);
}

int fdatasync(int fd)
{
    wait_for_the_platter();
    return real_fdatasync(fd);
}
