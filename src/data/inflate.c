#include "data/inflate.h"

#include <limits.h>
#include <stdint.h>

#include <zlib.h>

/* zlib counts in 32 bits: it gets the input in shares. */
typedef struct inflater {
    z_stream z;
    size_t left_in;
} inflater;

static unsigned next_share(size_t *left)
{
    const unsigned n = *left < UINT_MAX ? (unsigned)*left : UINT_MAX;
    *left -= n;
    return n;
}

/* Inflates until out is full (Z_OK), the stream ends (Z_STREAM_END) or it fails; *made: bytes. */
static int fill(inflater *f, unsigned char *out, size_t n_out, size_t *made)
{
    size_t left_out = n_out;
    int status = Z_OK;
    f->z.next_out = out;
    f->z.avail_out = 0;
    while (status == Z_OK && (f->z.avail_out || left_out)) {
        if (f->z.avail_in == 0)
            f->z.avail_in = next_share(&f->left_in);
        if (f->z.avail_out == 0)
            f->z.avail_out = next_share(&left_out);
        status = inflate(&f->z, Z_NO_FLUSH);
    }
    *made = n_out - left_out - f->z.avail_out;
    return status;
}

static rung_status start(inflater *f, inflate_format format, const unsigned char *in, size_t n_in,
                         rung_error *err)
{
    *f = (inflater){.z.next_in = (unsigned char *)(uintptr_t)in, .left_in = n_in};
    if (inflateInit2(&f->z, format == INFLATE_RAW ? -MAX_WBITS : 16 + MAX_WBITS) != Z_OK)
        return fail_memory(err, "the decompressor", 0);
    return RUNG_OK;
}

static rung_status explain(int status, rung_error *err)
{
    if (status == Z_MEM_ERROR)
        return fail_memory(err, "the decompressor", 0);
    if (status == Z_BUF_ERROR)
        return fail(err, RUNG_EFORMAT, "the compressed data is truncated");
    return fail(err, RUNG_EFORMAT, "the compressed data is damaged");
}

rung_status inflate_start(inflate_format format, const unsigned char *in, size_t n_in,
                          unsigned char *out, size_t n_out, rung_error *err)
{
    inflater f;
    size_t made;
    rung_status st = start(&f, format, in, n_in, err);
    if (st != RUNG_OK)
        return st;
    const int status = fill(&f, out, n_out, &made);
    inflateEnd(&f.z);
    if (made == n_out)
        return RUNG_OK;
    return explain(status == Z_STREAM_END ? Z_BUF_ERROR : status, err);
}

rung_status inflate_whole(inflate_format format, const unsigned char *in, size_t n_in,
                          unsigned char *out, size_t n_out, rung_error *err)
{
    inflater f;
    size_t made, more = 0;
    unsigned char beyond;
    rung_status st = start(&f, format, in, n_in, err);
    if (st != RUNG_OK)
        return st;
    int status = fill(&f, out, n_out, &made);
    if (status == Z_OK) /* full: the end of the stream must be next */
        status = fill(&f, &beyond, 1, &more);
    const bool has_rest = f.left_in + f.z.avail_in > 0;
    inflateEnd(&f.z);
    if (status != Z_STREAM_END && more == 0)
        return explain(status, err);
    if (made != n_out || more || has_rest)
        return fail(err, RUNG_EFORMAT, "the compressed data is not of the length it should be");
    return RUNG_OK;
}
