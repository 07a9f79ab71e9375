/* What the readers of data do with any bytes: the first byte chooses the reader. What a reader
 * accepts must be usable: the arrays are read to their end, images are preprocessed. */
#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/npy.h"
#include "data/pixels.h"

static volatile unsigned char sink; /* keeps the reads */

static void read_tensor(const rung_tensor *t)
{
    size_t n = npy_item_bytes(t->type);
    for (int i = 0; i < t->rank; i++)
        n *= (size_t)t->dims[i];
    for (size_t i = 0; i < n; i++)
        sink ^= ((const unsigned char *)t->data)[i];
}

static void try_npz(const uint8_t *data, size_t size)
{
    arena *mem = arena_new();
    npz_entry *e;
    int n;
    if (mem && npz_view(data, size, mem, &e, &n, NULL) == RUNG_OK)
        for (int i = 0; i < n; i++)
            read_tensor(&e[i].t);
    arena_free(mem);
}

/* The text must say the same when it is read twice, and never a zero divisor. */
static void try_preprocess(const uint8_t *data, size_t size)
{
    char text[256];
    preprocess a, b;
    rung_error err = {""};
    const size_t n = size < sizeof text - 1 ? size : sizeof text - 1;
    memcpy(text, data, n);
    text[n] = '\0';
    const bool good = preprocess_parse(text, &a, &err) == RUNG_OK;
    if (good != (preprocess_parse(text, &b, NULL) == RUNG_OK) || (!good && !err.message[0]))
        abort();
    if (good && (a.scale == 0 || a.std[0] == 0 || a.resize_w < 0 || a.crop_w > IMAGE_MAX_SIDE))
        abort();
}

static void try_image(const uint8_t *data, size_t size)
{
    static const preprocess steps = {.resize_w = 9, .crop_w = 7, .crop_h = 8, .channels = 3};
    pixel_plan plan;
    scratch memory = {0};
    image im;
    rung_tensor out;
    pixel_plan_init(&plan, &steps);
    if (image_decode(data, size, &memory.decoded, &im, NULL) == RUNG_OK &&
        (size_t)im.w * (size_t)im.h < 1 << 20 &&
        pixel_plan_run(&plan, &im, &memory, &out, NULL) == RUNG_OK)
        read_tensor(&out);
    scratch_free(&memory);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    rung_tensor t;
    if (size == 0)
        return 0;
    switch (*data++) {
    case 'n':
        if (npy_view(data, size - 1, &t, NULL) == RUNG_OK)
            read_tensor(&t);
        break;
    case 'z':
        try_npz(data, size - 1);
        break;
    case 'p':
        try_preprocess(data, size - 1);
        break;
    case 'i':
        try_image(data, size - 1);
        break;
    }
    return 0;
}
