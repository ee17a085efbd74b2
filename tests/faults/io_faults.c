/*
 * Faults of a disk, by LD_PRELOAD, for one SQLite database: errors, a stall, and a record of all
 * that was written and synced. See disk.py, which builds, steers and reads it.
 *
 *     FAULTS_DATABASE  absolute path of the database; files beside it count by their suffix
 *     FAULTS_CONTROL   a file of struct control, which the test writes while the program runs
 *     FAULTS_RECORD    where to append the record; unset: none is kept
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

struct control {
    int32_t write_errno; /* what writes, syncs and reads fail with; 0: they succeed */
    int32_t sync_errno;
    int32_t read_errno;
    int32_t stall;   /* syncs wait while this is not 0 */
    int32_t stalled; /* how many wait now */
    int32_t syncs;   /* how many were done */
    int32_t refused; /* how many calls failed by our doing */
};

enum file { DATABASE, WAL, JOURNAL, FOLDER, FILES, OTHER = -1 };

struct entry {
    uint8_t kind; /* Write, Sync, Truncate, Create, Unlink */
    uint8_t file;
    uint16_t unused;
    uint32_t length;
    uint64_t offset;
};

static volatile struct control nothing, *control = &nothing;
static char paths[FILES][PATH_MAX];
static int record_fd = -1;

#define REAL(name) ((__typeof__(&name))real_##name)
#define FIND(name) (real_##name = dlsym(RTLD_NEXT, #name))
static void *real_pwrite64, *real_pread64, *real_fdatasync, *real_fsync, *real_ftruncate64,
    *real_open64, *real_unlink;

static void find(void)
{
    FIND(pwrite64), FIND(pread64), FIND(fdatasync), FIND(fsync), FIND(ftruncate64);
    FIND(open64), FIND(unlink);
}

__attribute__((constructor)) static void start(void)
{
    const char *database = getenv("FAULTS_DATABASE");
    const char *steered = getenv("FAULTS_CONTROL");
    const char *recorded = getenv("FAULTS_RECORD");
    int fd;

    find();
    if (!database || strlen(database) > PATH_MAX - 10)
        return;
    strcpy(paths[DATABASE], database);
    strcat(strcpy(paths[WAL], database), "-wal");
    strcat(strcpy(paths[JOURNAL], database), "-journal");
    strcpy(paths[FOLDER], database);
    *strrchr(paths[FOLDER], '/') = 0;
    if (steered && (fd = REAL(open64)(steered, O_RDWR | O_CLOEXEC)) >= 0) {
        void *mapped = mmap(0, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (mapped != MAP_FAILED)
            control = mapped;
        close(fd);
    }
    if (recorded)
        record_fd = REAL(open64)(recorded, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
}

static enum file by_path(const char *path)
{
    for (int file = 0; file < FILES; file++)
        if (paths[file][0] && strcmp(path, paths[file]) == 0)
            return file;
    return OTHER;
}

static enum file by_fd(int fd)
{
    char link[40], path[PATH_MAX];
    ssize_t length;

    if (!paths[DATABASE][0])
        return OTHER;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return OTHER;
    path[length] = 0;
    return by_path(path);
}

static void record(char kind, enum file file, const void *data, uint32_t length, uint64_t offset)
{
    struct entry entry = {kind, file, 0, length, offset};
    struct iovec parts[2] = {{&entry, sizeof entry}, {(void *)data, data ? length : 0}};

    if (record_fd >= 0 && writev(record_fd, parts, 2) < 0)
        abort();
}

static int refused(int number)
{
    if (!number)
        return 0;
    __atomic_add_fetch(&control->refused, 1, __ATOMIC_RELAXED);
    errno = number;
    return 1;
}

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset)
{
    enum file file = by_fd(fd);

    if (file != OTHER) {
        if (refused(control->write_errno))
            return -1;
        record('W', file, data, length, offset);
    }
    return REAL(pwrite64)(fd, data, length, offset);
}

ssize_t pread64(int fd, void *data, size_t length, off64_t offset)
{
    if (control->read_errno && by_fd(fd) != OTHER && refused(control->read_errno))
        return -1;
    return REAL(pread64)(fd, data, length, offset);
}

int ftruncate64(int fd, off64_t length)
{
    enum file file = by_fd(fd);

    if (file != OTHER) {
        if (refused(control->write_errno))
            return -1;
        record('T', file, 0, 0, length);
    }
    return REAL(ftruncate64)(fd, length);
}

static int synced(int fd, void *real)
{
    const struct timespec moment = {0, 2000000};
    enum file file = by_fd(fd);
    int status;

    if (file == OTHER)
        return ((int (*)(int))real)(fd);
    if (control->stall) {
        __atomic_add_fetch(&control->stalled, 1, __ATOMIC_RELAXED);
        while (control->stall)
            nanosleep(&moment, 0);
        __atomic_add_fetch(&control->stalled, -1, __ATOMIC_RELAXED);
    }
    if (refused(control->sync_errno))
        return -1;
    status = ((int (*)(int))real)(fd);
    if (status == 0) {
        /* Written before, recorded before: what this covers stands above it in the record. */
        record('S', file, 0, 0, 0);
        __atomic_add_fetch(&control->syncs, 1, __ATOMIC_RELAXED);
    }
    return status;
}

int fdatasync(int fd)
{
    return synced(fd, real_fdatasync);
}

int fsync(int fd)
{
    return synced(fd, real_fsync);
}

int open64(const char *path, int flags, ...)
{
    enum file file;
    mode_t mode = 0;
    va_list rest;

    if (!real_open64)
        find();
    if (flags & (O_CREAT | O_TMPFILE)) {
        va_start(rest, flags);
        mode = va_arg(rest, mode_t);
        va_end(rest);
    }
    file = flags & O_CREAT ? by_path(path) : OTHER;
    if (file != OTHER && access(path, F_OK) != 0) {
        if (refused(control->write_errno))
            return -1;
        record('C', file, 0, 0, 0);
    }
    return REAL(open64)(path, flags, mode);
}

int unlink(const char *path)
{
    enum file file = by_path(path);

    if (file != OTHER)
        record('U', file, 0, 0, 0);
    return REAL(unlink)(path);
}

#ifdef __GLIBC__
/* An SQLite that was built without the names for large files calls these; they are the same. */
#define SAME(name) __attribute__((alias(#name)))
ssize_t pwrite(int, const void *, size_t, off_t) SAME(pwrite64);
ssize_t pread(int, void *, size_t, off_t) SAME(pread64);
int ftruncate(int, off_t) SAME(ftruncate64);
int open(const char *, int, ...) SAME(open64);
#endif
