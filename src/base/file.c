#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"

enum {
    MOST_TEMPORARIES = 32,
    BUFFER_BYTES = 1 << 16,
};

/* The temporary files that are open. A slot belongs to the writer that took it; the signal handler
 * only turns OPEN into REMOVED, and a name is written while its slot is TAKEN, so that the handler
 * never reads half a name. */
enum { FREE, TAKEN, OPEN, REMOVING, REMOVED };
static struct temporary {
    atomic_int state;
    char path[PATH_MAX];
} temporaries[MOST_TEMPORARIES];

struct file_writer {
    int fd;
    bool failed;
    char *path;             /* as the caller gave it, for messages */
    char *target;           /* what it stands for when it is a link; from realpath, or = path */
    struct temporary *temp; /* NULL: the target is a device or pipe and is written directly */
    size_t used;
    unsigned char buffer[BUFFER_BYTES];
};

static rung_status fail_errno(rung_error *err, const char *doing, const char *path, int reason)
{
    if (reason == ENOSPC || reason == EDQUOT)
        return fail(err, RUNG_EIO, "%s: cannot %s: the disk is full (%s); free some space", path,
                    doing, strerror(reason));
    return fail(err, reason == ENOMEM ? RUNG_EMEMORY : RUNG_EIO, "%s: cannot %s: %s", path, doing,
                strerror(reason));
}

rung_status file_map_open(const char *path, file_map *out, rung_error *err)
{
    struct stat st;
    rung_status status = RUNG_OK;
    void *data = NULL;

    *out = (file_map){0};
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe must not stop us */
    if (fd < 0)
        return fail_errno(err, "open", path, errno);
    if (fstat(fd, &st) != 0) {
        status = fail_errno(err, "read", path, errno);
    } else if (!S_ISREG(st.st_mode)) {
        status = fail(err, RUNG_EIO, "%s: is not a regular file", path);
    } else if (st.st_size > 0) {
        data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED)
            status = fail_errno(err, "read", path, errno);
        else
            *out = (file_map){data, (size_t)st.st_size};
    }
    close(fd);
    return status;
}

void file_map_close(file_map *m)
{
    if (m->data)
        munmap((void *)(uintptr_t)m->data, m->size);
    *m = (file_map){0};
}

static struct temporary *take_temporary(void)
{
    for (int i = 0; i < MOST_TEMPORARIES; i++) {
        int expected = FREE;
        if (atomic_compare_exchange_strong(&temporaries[i].state, &expected, TAKEN))
            return &temporaries[i];
    }
    return NULL;
}

/* A slot whose file the handler is removing at this moment stays out of use: the process ends. */
static void release_temporary(struct temporary *t)
{
    int state = atomic_load(&t->state);

    while (state != REMOVING && !atomic_compare_exchange_weak(&t->state, &state, FREE))
        continue;
}

void file_remove_temporaries(void)
{
    const int kept = errno;

    for (int i = 0; i < MOST_TEMPORARIES; i++) {
        int expected = OPEN;
        if (atomic_compare_exchange_strong(&temporaries[i].state, &expected, REMOVING)) {
            unlink(temporaries[i].path);
            atomic_store(&temporaries[i].state, REMOVED);
        }
    }
    errno = kept;
}

/* Creates a new file in the folder of the target; its name does not grow with the target's, which
 * may be as long as the file system allows. */
static rung_status create_temporary(file_writer *w, mode_t mode, rung_error *err)
{
    static atomic_uint counter;
    const char *slash = strrchr(w->target, '/');
    const int folder = slash ? (int)(slash - w->target + 1) : 0;

    w->temp = take_temporary();
    if (!w->temp)
        return fail(err, RUNG_EIO, "%s: more than %d files are being written at once", w->path,
                    MOST_TEMPORARIES);
    do {
        const unsigned n = atomic_fetch_add(&counter, 1);
        atomic_store(&w->temp->state, TAKEN);
        const int length = snprintf(w->temp->path, PATH_MAX, "%.*s.rung-%ld-%u.tmp", folder,
                                    w->target, (long)getpid(), n);
        if (length < 0 || length >= PATH_MAX)
            return fail_errno(err, "create", w->path, ENAMETOOLONG);
        atomic_store(&w->temp->state, OPEN); /* first: a signal may come between the two */
        w->fd = open(w->temp->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    } while (w->fd < 0 && errno == EEXIST); /* left by a killed process of the same number */
    if (w->fd < 0)
        return fail_errno(err, "create a file beside it", w->path, errno);
    return RUNG_OK;
}

static rung_status open_output(file_writer *w, rung_error *err)
{
    struct stat st;

    if (stat(w->path, &st) != 0)
        return create_temporary(w, 0666, err);
    if (S_ISDIR(st.st_mode))
        return fail_errno(err, "write", w->path, EISDIR);
    if (!S_ISREG(st.st_mode)) {
        w->fd = open(w->path, O_WRONLY | O_CLOEXEC);
        return w->fd < 0 ? fail_errno(err, "open", w->path, errno) : RUNG_OK;
    }
    char *real = realpath(w->path, NULL);
    if (!real)
        return fail_errno(err, "write", w->path, errno);
    w->target = real;
    const rung_status status = create_temporary(w, st.st_mode & 0777, err);
    /* Adds what the umask took; a file system without modes may refuse, and then loses nothing. */
    if (status == RUNG_OK)
        (void)fchmod(w->fd, st.st_mode & 0777);
    return status;
}

static void writer_free(file_writer *w)
{
    if (w->fd >= 0)
        close(w->fd);
    if (w->temp)
        release_temporary(w->temp);
    if (w->target != w->path)
        free(w->target);
    mem_free(w->path);
    mem_free(w);
}

rung_status file_writer_open(const char *path, file_writer **out, rung_error *err)
{
    *out = NULL;
    const size_t length = strlen(path) + 1;
    file_writer *w = mem_alloc(sizeof *w);
    char *copy = mem_alloc(length);
    if (!w || !copy) {
        mem_free(w);
        mem_free(copy);
        return fail_memory(err, "a file's buffer", sizeof *w + length);
    }
    memcpy(copy, path, length);
    w->fd = -1;
    w->failed = false;
    w->path = w->target = copy;
    w->temp = NULL;
    w->used = 0;
    const rung_status status = open_output(w, err);
    if (status != RUNG_OK)
        writer_free(w);
    else
        *out = w;
    return status;
}

static rung_status write_all(file_writer *w, const unsigned char *data, size_t n, rung_error *err)
{
    while (n) {
        const ssize_t written = write(w->fd, data, n);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0) {
            w->failed = true;
            return fail_errno(err, "write", w->path, errno);
        }
        data += written;
        n -= (size_t)written;
    }
    return RUNG_OK;
}

static rung_status flush(file_writer *w, rung_error *err)
{
    const size_t n = w->used;

    w->used = 0;
    return write_all(w, w->buffer, n, err);
}

rung_status file_write(file_writer *w, const void *data, size_t n, rung_error *err)
{
    if (n > BUFFER_BYTES - w->used) {
        const rung_status status = flush(w, err);
        if (status != RUNG_OK)
            return status;
    }
    if (n >= BUFFER_BYTES)
        return write_all(w, data, n, err);
    if (n)
        memcpy(w->buffer + w->used, data, n);
    w->used += n;
    return RUNG_OK;
}

/* Makes the rename itself last. Not every file system can; the file is whole in any case. */
static void sync_folder(const char *target)
{
    char folder[PATH_MAX] = ".";
    const char *slash = strrchr(target, '/');

    if (slash) {
        memcpy(folder, target, (size_t)(slash - target + 1));
        folder[slash - target + 1] = '\0';
    }
    const int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
}

static rung_status finish(file_writer *w, rung_error *err)
{
    if (w->failed)
        return fail(err, RUNG_EIO, "%s: not written, because an earlier write failed", w->path);
    const rung_status status = flush(w, err);
    if (status != RUNG_OK)
        return status;
    if (w->temp && fsync(w->fd) != 0)
        return fail_errno(err, "write", w->path, errno);
    const int fd = w->fd;
    w->fd = -1;
    if (close(fd) != 0)
        return fail_errno(err, "write", w->path, errno);
    if (w->temp && rename(w->temp->path, w->target) != 0)
        return fail_errno(err, "replace it", w->path, errno);
    if (w->temp)
        sync_folder(w->target);
    return RUNG_OK;
}

rung_status file_writer_commit(file_writer *w, rung_error *err)
{
    const rung_status status = finish(w, err);

    if (status != RUNG_OK)
        file_writer_abort(w);
    else
        writer_free(w);
    return status;
}

void file_writer_abort(file_writer *w)
{
    if (!w)
        return;
    if (w->temp)
        unlink(w->temp->path);
    writer_free(w);
}

bool path_is_directory(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

rung_status file_write_whole(const char *path, const void *data, size_t n, rung_error *err)
{
    file_writer *w = NULL;
    rung_status st = file_writer_open(path, &w, err);
    if (st != RUNG_OK)
        return st;
    if ((st = file_write(w, data, n, err)) == RUNG_OK)
        return file_writer_commit(w, err);
    file_writer_abort(w);
    return st;
}
