#include "grad_cases.h"

#define LIST(...) (const int64_t[]){__VA_ARGS__}

/* --- shapes, and parts ------------------------------------------------------------------------ */
/* x [2,3,4], with a second operand of integers where n > 0. */
static void run_view(const char *op, int n, const int64_t *v)
{
    grad_case c;
    case_begin(&c, op, 13, 1);
    case_input(&c, DIMS(2, 1, 3, 4));
    if (n)
        case_ints(&c, DIMS(n), v);
    case_check(&c);
}

static void run_slice(int n, const int64_t *from, const int64_t *to, const int64_t *axes,
                      const int64_t *by)
{
    grad_case c;
    case_begin(&c, "Slice", 13, 1);
    case_input(&c, DIMS(3, 6, 7));
    case_ints(&c, DIMS(n), from);
    case_ints(&c, DIMS(n), to);
    case_ints(&c, DIMS(n), axes);
    if (by)
        case_ints(&c, DIMS(n), by);
    case_check(&c);
}

static void run_concat(int64_t axis, const int64_t *sizes, int n)
{
    grad_case c;
    case_begin(&c, "Concat", 13, 1);
    for (int i = 0; i < n; i++) {
        int64_t dims[3] = {2, 3, 4};
        dims[axis < 0 ? axis + 3 : axis] = sizes[i];
        case_input(&c, 3, dims);
    }
    case_int_attr(&c, "axis", axis);
    case_check(&c);
}

static void run_split(int64_t axis, int n_out, const int64_t *sizes)
{
    grad_case c;
    case_begin(&c, "Split", 13, n_out);
    case_input(&c, DIMS(2, 6, 3));
    if (sizes)
        case_ints(&c, DIMS(n_out), sizes);
    case_int_attr(&c, "axis", axis);
    case_check(&c);
}

static void run_pad(const char *mode, const int64_t *pads, bool has_value)
{
    grad_case c;
    case_begin(&c, "Pad", 19, 1);
    case_input(&c, DIMS(2, 3, 4));
    case_ints(&c, DIMS(6), pads);
    if (has_value)
        case_values(&c, 0, NULL, (const float[]){1.5f});
    case_string_attr(&c, "mode", mode);
    case_check(&c);
}

static void run_block(const char *op, const char *mode, int rank, const int64_t *dims)
{
    grad_case c;
    case_begin(&c, op, 13, 1);
    case_input(&c, rank, dims);
    case_int_attr(&c, "blocksize", 2);
    if (mode)
        case_string_attr(&c, "mode", mode);
    case_check(&c);
}

static void run_transpose(int n, const int64_t *perm)
{
    grad_case c;
    case_begin(&c, "Transpose", 13, 1);
    case_input(&c, DIMS(2, 3, 4, 2));
    if (n)
        case_ints_attr(&c, "perm", n, perm);
    case_check(&c);
}

void test_moves(void **state)
{
    run_view("Reshape", 2, LIST(4, -1));
    run_view("Flatten", 0, NULL);
    run_view("Squeeze", 1, LIST(1));
    run_view("Unsqueeze", 2, LIST(0, 3));
    run_view("Expand", 4, LIST(2, 5, 3, 4));
    run_view("Expand", 5, LIST(3, 2, 1, 1, 4));
    run_view("Expand", 1, LIST(1));
    run_view("Tile", 4, LIST(1, 2, 1, 3));
    run_transpose(0, NULL);
    run_transpose(4, LIST(0, 2, 3, 1));
    run_transpose(4, LIST(3, 0, 2, 1));
    run_slice(2, LIST(1, 0), LIST(5, 100), LIST(1, 2), NULL);
    run_slice(3, LIST(0, -1, 6), LIST(3, 0, -100), LIST(0, 1, 2), LIST(2, -2, -1));
    run_slice(1, LIST(-2), LIST(INT64_MAX), LIST(-1), LIST(1));
    run_concat(1, LIST(2, 1, 3), 3);
    run_concat(-1, LIST(4, 0, 1), 3);
    run_concat(0, LIST(2), 1);
    run_split(1, 3, NULL);
    run_split(1, 3, LIST(1, 0, 5));
    run_split(-1, 2, LIST(2, 1));
    run_pad("constant", LIST(0, 1, 2, 1, 0, 3), true);
    run_pad("constant", LIST(0, -1, 2, 1, 0, -2), false);
    run_pad("reflect", LIST(0, 2, 3, 1, 1, 2), false);
    run_pad("edge", LIST(1, 2, 3, 0, 1, 2), false);
    run_pad("wrap", LIST(1, 0, 3, 0, 1, 5), false);
    run_block("DepthToSpace", NULL, DIMS(2, 8, 2, 3));
    run_block("DepthToSpace", "CRD", DIMS(1, 12, 3, 2));
    run_block("SpaceToDepth", NULL, DIMS(2, 3, 4, 6));
}

/* --- Gather, GatherElements ------------------------------------------------------------------- */
static void run_gather(const char *op, int64_t axis, int rank, const int64_t *dims,
                       const int64_t *index)
{
    grad_case c;
    case_begin(&c, op, 13, 1);
    case_input(&c, DIMS(3, 4, 2));
    case_ints(&c, rank, dims, index);
    case_int_attr(&c, "axis", axis);
    case_check(&c);
}

void test_gathers(void **state)
{
    run_gather("Gather", 0, DIMS(2, 3), LIST(0, 2, 2, -1, 0, 2));
    run_gather("Gather", 1, DIMS(3), LIST(3, -4, 3));
    run_gather("Gather", -1, 0, NULL, LIST(1));
    run_gather("GatherElements", 0, DIMS(2, 2, 2), LIST(0, 1, 2, 1, 0, -1, 2, 0));
    run_gather("GatherElements", 1, DIMS(3, 2, 1), LIST(0, 3, 3, 3, -2, 1));
}

/* --- Resize ----------------------------------------------------------------------------------- */
static void run_resize(const char *mode, const char *coordinates, const float *scales,
                       const int64_t *sizes)
{
    grad_case c;
    case_begin(&c, "Resize", 19, 1);
    case_input(&c, DIMS(2, 2, 4, 5));
    case_absent(&c);
    if (scales)
        case_parameters(&c, DIMS(4), scales);
    else
        case_absent(&c);
    if (sizes)
        case_ints(&c, DIMS(4), sizes);
    case_string_attr(&c, "mode", mode);
    case_string_attr(&c, "coordinate_transformation_mode", coordinates);
    case_check(&c);
}

void test_resize(void **state)
{
    static const char *const coordinates[] = {"half_pixel", "pytorch_half_pixel", "align_corners",
                                              "asymmetric", "half_pixel_symmetric"};
    static const char *const modes[] = {"nearest", "linear", "cubic"};
    const float up[4] = {1, 1, 2, 1.5f}, down[4] = {1, 1, 0.5f, 0.75f};
    for (int m = 0; m < 3; m++) {
        for (int i = 0; i < 5; i++) {
            run_resize(modes[m], coordinates[i], up, NULL);
            run_resize(modes[m], coordinates[i], down, NULL);
            run_resize(modes[m], coordinates[i], NULL, LIST(2, 2, 3, 7));
        }
    }
    run_resize("linear", "half_pixel", NULL, LIST(2, 3, 4, 9));
}
