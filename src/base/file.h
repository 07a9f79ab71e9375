/* Files: read by mapping, written whole or not at all. */
#ifndef RUNG_BASE_FILE_H
#define RUNG_BASE_FILE_H

#include <stdbool.h>
#include <stdio.h>

#include "base/status.h"

typedef struct file_map {
    const unsigned char *data; /* NULL when size = 0 */
    size_t               size;
} file_map;

/* Maps a regular file for reading. Errors name the path and the reason. */
rung_status file_map_open(const char *path, file_map *out, rung_error *err);
void        file_map_close(file_map *m);

/* A file under a temporary name beside `path`, renamed onto it by commit (after fsync), removed by
 * abort or by file_remove_temporaries. */
typedef struct file_writer file_writer;
rung_status file_writer_open(const char *path, file_writer **out, rung_error *err);
rung_status file_write(file_writer *w, const void *data, size_t n, rung_error *err);
rung_status file_writer_commit(file_writer *w, rung_error *err); /* frees w in every case */
void        file_writer_abort(file_writer *w);                   /* NULL is fine */
/* The three in one, for what is in memory as a whole. */
rung_status file_write_whole(const char *path, const void *data, size_t n, rung_error *err);

/* Async-signal-safe: unlinks every temporary file that is open now. For a handler of SIGINT. */
void file_remove_temporaries(void);

bool path_is_directory(const char *path);

#endif
