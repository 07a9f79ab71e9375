/* NumPy's .npy and .npz (formats 1.0 to 3.0; little-endian, C order; npz stored or deflated). */
#ifndef RUNG_DATA_NPY_H
#define RUNG_DATA_NPY_H

#include "base/arena.h"
#include "base/status.h"

/* Reads a .npy file whole; data in mem. */
rung_status npy_read_file(const char *path, arena *mem, rung_tensor *out, rung_error *err);

typedef struct npz_entry {
    const char *name; /* without .npy */
    rung_tensor t;
} npz_entry;
rung_status npz_read_file(const char *path, arena *mem, npz_entry **out, int *n, rung_error *err);

/* Writes atomically. */
rung_status npy_write_file(const char *path, const rung_tensor *t, rung_error *err);

/* The same from memory and without copying: data points into `bytes` and may be unaligned; arrays
 * that are deflated are in mem. Messages do not name the file. */
rung_status npy_view(const unsigned char *bytes, size_t n, rung_tensor *out, rung_error *err);
rung_status npz_view(const unsigned char *bytes, size_t n, arena *mem, npz_entry **out,
                     int *n_entries, rung_error *err);

/* Bytes of one element of a type that .npy files have; 0 for the others. */
size_t npy_item_bytes(rung_dtype type);

#endif
