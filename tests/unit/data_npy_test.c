/* .npy and .npz: round trips, and files that lie. */
#include "data_files.h"

#include <zlib.h>

#include "base/mem.h"
#include "data/npy.h"

static void round_trip(void **state)
{
    static const rung_dtype types[] = {RUNG_BOOL, RUNG_I8,  RUNG_U8,  RUNG_I16, RUNG_U16, RUNG_I32,
                                       RUNG_U32,  RUNG_I64, RUNG_U64, RUNG_F16, RUNG_F32, RUNG_F64};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        for (int rank = 0; rank <= RUNG_MAX_RANK; rank++) {
            unsigned char data[8 * 6 * 8];
            for (size_t b = 0; b < sizeof data; b++)
                data[b] = (unsigned char)(types[i] == RUNG_BOOL ? b % 2 : b * 7);
            rung_tensor t = {types[i], rank, {2, 3, 1, 1, 1, 1, 1, 1}, data}, back;
            assert_int_equal(npy_write_file("a.npy", &t, NULL), RUNG_OK);
            arena *mem = arena_new();
            assert_int_equal(npy_read_file("a.npy", mem, &back, NULL), RUNG_OK);
            assert_int_equal(back.type, types[i]);
            assert_int_equal(back.rank, rank);
            assert_memory_equal(back.dims, t.dims, (size_t)rank * sizeof *t.dims);
            const size_t count = rank == 0 ? 1 : rank == 1 ? 2 : 6;
            assert_memory_equal(back.data, data, count * npy_item_bytes(types[i]));
            assert_int_equal((uintptr_t)back.data % 64, 0);
            arena_free(mem);
        }
}

static void types_that_npy_lacks(void **state)
{
    char data[] = "ab";
    const rung_tensor t = {RUNG_BF16, 1, {1}, data};
    rung_error err = {""};
    assert_int_equal(npy_write_file("b.npy", &t, &err), RUNG_EUNSUPPORTED);
    assert_says(&err, "b.npy|16");
}

static void no_half_written_file(void **state)
{
    char data[] = "a";
    const rung_tensor t = {RUNG_U8, 1, {1}, data};
    rung_error err = {""};
    assert_int_equal(npy_write_file("no/such/folder.npy", &t, &err), RUNG_EIO);
    assert_says(&err, "no/such/folder.npy");
}

/* A .npy of format 1 with this dict and n bytes of data. */
static size_t make_npy(unsigned char *out, const char *dict, size_t n)
{
    const size_t length = strlen(dict);
    memcpy(out, "\x93NUMPY\1", 8);
    out[8] = (unsigned char)(length & 255);
    out[9] = (unsigned char)(length >> 8);
    memcpy(out + 10, dict, length);
    memset(out + 10 + length, 1, n);
    return 10 + length + n;
}

static void headers(void **state)
{
    static const struct {
        const char *dict;
        size_t n;
        rung_status status;
        const char *words;
    } cases[] = {
        {"{'descr': '<i2', 'fortran_order': False, 'shape': (2, 3), }", 12, RUNG_OK, ""},
        {"{\"shape\":(2,3),\"descr\":\"=i2\",\"fortran_order\":False}\n", 12, RUNG_OK, ""},
        {"{'descr': '|b1', 'fortran_order': True, 'shape': (3,), }", 3, RUNG_OK, ""},
        {"{'descr': '<f8', 'fortran_order': False, 'shape': (0, 9000000000), }", 0, RUNG_OK, ""},
        {"{'descr': '<i2', 'fortran_order': False, 'shape': (2, 3), }", 11, RUNG_EFORMAT,
         "truncated|12|11"},
        {"{'descr': '<i2', 'fortran_order': False, 'shape': (2, 3), }", 13, RUNG_EFORMAT, "12|13"},
        {"{'descr': '>i2', 'fortran_order': False, 'shape': (2, 3), }", 12, RUNG_EUNSUPPORTED,
         "big-endian"},
        {"{'descr': '<i2', 'fortran_order': True, 'shape': (2, 3), }", 12, RUNG_EUNSUPPORTED,
         "Fortran"},
        {"{'descr': '<i2', 'fortran_order': Nope, 'shape': (2, 3), }", 12, RUNG_EFORMAT, "True"},
        {"{'descr': '<i2', 'fortran_order': False, 'shape': (4294967296, 4294967296), }", 12,
         RUNG_EFORMAT, "too large"},
        {"{'descr': '<i2', 'fortran_order': False, 'shape': (99999999999999999999), }", 12,
         RUNG_EFORMAT, "too large"},
        {"{'descr': '<i2', 'fortran_order': False, 'shape': (-1,), }", 12, RUNG_EFORMAT,
         "dimension"},
        {"{'descr': '<i2', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1), }", 2,
         RUNG_EUNSUPPORTED, "8 dimensions"},
        {"{'descr': '<i2', 'fortran_order': False, }", 2, RUNG_EFORMAT, "missing"},
        {"{'descr': '<i2', 'descr': '<i2', 'shape': ()}", 2, RUNG_EFORMAT, "twice"},
        {"{'descr': '<i2', 'fortran_order': False, 'shape': (2, 3", 12, RUNG_EFORMAT, "header"},
        {"{'descr': '<i2", 12, RUNG_EFORMAT, "string"},
        {"", 0, RUNG_EFORMAT, "dict"},
        {"{'descr': '|O', 'fortran_order': False, 'shape': (2,)}", 16, RUNG_EUNSUPPORTED, "\"|O\""},
        {"{'descr': [('a', '<i2')], 'fortran_order': False, 'shape': (2,)}", 4, RUNG_EUNSUPPORTED,
         "structured"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        unsigned char bytes[256];
        rung_tensor t;
        rung_error err = {""};
        const size_t n = make_npy(bytes, cases[i].dict, cases[i].n);
        const rung_status st = npy_view(bytes, n, &t, &err);
        if (st != cases[i].status)
            fail_msg("%s: status %d, \"%s\"", cases[i].dict, (int)st, err.message);
        assert_says(&err, cases[i].words);
    }
}

static void bool_of_two(void **state)
{
    unsigned char bytes[128];
    rung_tensor t;
    rung_error err = {""};
    const size_t n =
        make_npy(bytes, "{'descr': '|b1', 'fortran_order': False, 'shape': (3,), }", 3);
    bytes[n - 2] = 2;
    assert_int_equal(npy_view(bytes, n, &t, &err), RUNG_EFORMAT);
    assert_says(&err, "element 1|2");
}

static unsigned char *little(unsigned char *p, uint64_t v, int n)
{
    for (; n--; v >>= 8)
        *p++ = (unsigned char)v;
    return p;
}

/* What a zip archive of one member says about it. */
typedef struct claim {
    unsigned flags, method;
    uint32_t crc, packed, size, offset, n_entries;
    const char *name;
} claim;

/* A zip archive of one member with these bytes and claims. */
static size_t make_zip(unsigned char *out, const unsigned char *data, size_t n, const claim *c)
{
    const size_t name_n = strlen(c->name);
    unsigned char *p = out;
    memcpy(p, "PK\3\4", 4);
    memset(p + 4, 0, 26);
    little(p + 26, name_n, 2);
    memcpy(p + 30, c->name, name_n);
    memcpy(p + 30 + name_n, data, n);
    p += 30 + name_n + n;
    unsigned char *directory = p;
    memcpy(p, "PK\1\2", 4);
    memset(p + 4, 0, 42);
    little(p + 8, c->flags, 2);
    little(p + 10, c->method, 2);
    little(p + 16, c->crc, 4);
    little(p + 20, c->packed, 4);
    little(p + 24, c->size, 4);
    little(p + 28, name_n, 2);
    little(p + 42, c->offset, 4);
    memcpy(p + 46, c->name, name_n);
    p += 46 + name_n;
    unsigned char *end = p;
    memcpy(p, "PK\5\6", 4);
    memset(p + 4, 0, 18);
    little(p + 8, c->n_entries, 2);
    little(p + 10, c->n_entries, 2);
    little(p + 12, (uint64_t)(end - directory), 4);
    little(p + 16, (uint64_t)(directory - out), 4);
    return (size_t)(p + 22 - out);
}

static void zips_that_lie(void **state)
{
    unsigned char npy[128], zip[512];
    const size_t n = make_npy(npy, "{'descr': '|u1', 'fortran_order': False, 'shape': (4,)}", 4);
    const claim good = {.crc = (uint32_t)crc32(0, npy, (uInt)n),
                        .packed = (uint32_t)n,
                        .size = (uint32_t)n,
                        .n_entries = 1,
                        .name = "x.npy"};
    claim c[12];
    static const char *const words[12] = {
        "",          "checksum",    "encrypted",          "method 12", "where it should be",
        "two sizes", "its end",     "where it should be", "directory", "zip64",
        "\"x.txt\"", "larger than",
    };
    for (size_t i = 0; i < 12; i++)
        c[i] = good;
    c[1].crc ^= 1;
    c[2].flags = 1;
    c[3].method = 12;
    c[4].packed += 1000;
    c[5].size--;
    c[6].offset = 0x7fffffff;
    c[7].offset = 1;
    c[8].n_entries = 2;
    c[9].size = 0xffffffff;
    c[10].name = "x.txt";
    c[11].method = 8;
    c[11].size = 0xfffffff0;
    for (size_t i = 0; i < 12; i++) {
        arena *mem = arena_new();
        npz_entry *e;
        int n_entries;
        rung_error err = {""};
        const size_t bytes = make_zip(zip, npy, n, &c[i]);
        const rung_status st = npz_view(zip, bytes, mem, &e, &n_entries, &err);
        if (i == 0 ? st != RUNG_OK : st != RUNG_EFORMAT && st != RUNG_EUNSUPPORTED)
            fail_msg("case %zu: status %d, \"%s\"", i, (int)st, err.message);
        assert_says(&err, words[i]);
        arena_free(mem);
    }
}

/* The same archive from a file, cut at every length and with every byte changed in turn: an error
 * or the array, and no read beyond it (the sanitizers watch). */
static void zips_that_are_damaged(void **state)
{
    unsigned char npy[128], zip[512];
    const size_t n = make_npy(npy, "{'descr': '|u1', 'fortran_order': False, 'shape': (4,)}", 4);
    const claim good = {.crc = (uint32_t)crc32(0, npy, (uInt)n),
                        .packed = (uint32_t)n,
                        .size = (uint32_t)n,
                        .n_entries = 1,
                        .name = "x.npy"};
    const size_t bytes = make_zip(zip, npy, n, &good);
    for (size_t i = 0; i < 2 * bytes; i++) {
        arena *mem = arena_new();
        npz_entry *e;
        int n_entries;
        const size_t length = i < bytes ? i : bytes;
        unsigned char *copy = malloc(length + 1); /* exact: one byte beyond is seen */
        memcpy(copy + 1, zip, length);
        if (i >= bytes)
            copy[1 + i - bytes] ^= 0xff;
        const rung_status st = npz_view(copy + 1, length, mem, &e, &n_entries, NULL);
        assert_true(i >= bytes || st != RUNG_OK);
        free(copy);
        arena_free(mem);
    }
}

static void files_are_named(void **state)
{
    arena *mem = arena_new();
    rung_tensor t;
    npz_entry *e;
    int n;
    rung_error err = {""};
    assert_int_equal(npy_read_file("missing.npy", mem, &t, &err), RUNG_EIO);
    assert_says(&err, "missing.npy");
    put_text("text.npy", "not an array");
    assert_int_equal(npy_read_file("text.npy", mem, &t, &err), RUNG_EFORMAT);
    assert_says(&err, "text.npy|not a .npy");
    assert_int_equal(npz_read_file("text.npy", mem, &e, &n, &err), RUNG_EFORMAT);
    assert_says(&err, "text.npy|zip");
    arena_free(mem);
}

static void npz_file(void **state)
{
    unsigned char npy[128], zip[512];
    const size_t n = make_npy(npy, "{'descr': '|u1', 'fortran_order': False, 'shape': (4,)}", 4);
    const claim good = {.crc = (uint32_t)crc32(0, npy, (uInt)n),
                        .packed = (uint32_t)n,
                        .size = (uint32_t)n,
                        .n_entries = 1,
                        .name = "x.npy"};
    put_file("a.npz", zip, make_zip(zip, npy, n, &good));
    for (long fails = 0;; fails++) {
        arena *mem = arena_new();
        npz_entry *e;
        int n_entries;
        mem_fail_after(fails);
        const rung_status st = npz_read_file("a.npz", mem, &e, &n_entries, NULL);
        mem_fail_after(-1);
        if (st == RUNG_OK) {
            assert_int_equal(n_entries, 1);
            assert_string_equal(e->name, "x");
            assert_memory_equal(e->t.data, "\1\1\1\1", 4);
            assert_true(fails > 0);
        } else {
            assert_int_equal(st, RUNG_EMEMORY);
        }
        arena_free(mem);
        if (st == RUNG_OK)
            break;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(types_that_npy_lacks),
        cmocka_unit_test(no_half_written_file),
        cmocka_unit_test(headers),
        cmocka_unit_test(bool_of_two),
        cmocka_unit_test(zips_that_lie),
        cmocka_unit_test(zips_that_are_damaged),
        cmocka_unit_test(files_are_named),
        cmocka_unit_test(npz_file),
    };
    return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}
