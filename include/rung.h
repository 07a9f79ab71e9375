/* rung: quantization of ONNX networks and their execution in integer arithmetic.
 *
 * Every function that can fail returns a rung_status and writes one sentence (what, where, what to
 * do) into the caller's rung_error, which may be NULL. Handles are opaque; *_free takes NULL.
 * No global state: different handles may be used from different threads at once, one handle from
 * one thread at a time (a rung_model is only read by sessions, so sessions may share one).
 * Option structs begin with `size`, set by their initializer macro, so that they may grow; a zero
 * in every other field is the default. */
#ifndef RUNG_H
#define RUNG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define RUNG_API __attribute__((visibility("default")))
#else
#define RUNG_API
#endif

#define RUNG_VERSION "0.1.0"

typedef enum rung_status {
    RUNG_OK = 0,
    RUNG_EMEMORY,      /* an allocation failed, or a bound on memory was reached */
    RUNG_EIO,          /* a file could not be read or written */
    RUNG_EFORMAT,      /* a file is not what it should be (ONNX, image, npy, JSON ...) */
    RUNG_EMODEL,       /* a well-formed model that breaks the rules of its operators */
    RUNG_EUNSUPPORTED, /* legal, but rung cannot do it */
    RUNG_EARGUMENT,    /* the caller's argument, option or data does not fit */
    RUNG_EINTERRUPTED, /* stopped at the caller's wish */
} rung_status;

/* The caller's own error text: always terminated, cut when too long. */
typedef struct rung_error {
    char message[1024];
} rung_error;

/* Element types carry ONNX's TensorProto.DataType numbers. */
typedef enum rung_dtype {
    RUNG_UNDEFINED = 0,
    RUNG_F32 = 1,
    RUNG_U8 = 2,
    RUNG_I8 = 3,
    RUNG_U16 = 4,
    RUNG_I16 = 5,
    RUNG_I32 = 6,
    RUNG_I64 = 7,
    RUNG_STRING = 8,
    RUNG_BOOL = 9,
    RUNG_F16 = 10,
    RUNG_F64 = 11,
    RUNG_U32 = 12,
    RUNG_U64 = 13,
    RUNG_COMPLEX64 = 14,
    RUNG_COMPLEX128 = 15,
    RUNG_BF16 = 16,
    RUNG_F8E4M3FN = 17,
    RUNG_F8E4M3FNUZ = 18,
    RUNG_F8E5M2 = 19,
    RUNG_F8E5M2FNUZ = 20,
    RUNG_U4 = 21,
    RUNG_I4 = 22,
    RUNG_F4E2M1 = 23,
    RUNG_F8E8M0 = 24,
    RUNG_U2 = 25,
    RUNG_I2 = 26,
} rung_dtype;

#define RUNG_MAX_RANK 8

/* A dense row-major tensor in ONNX's dimension order. 4-bit types hold two elements a byte, the
 * first in the low half. Who owns `data` is said where a tensor is passed. */
typedef struct rung_tensor {
    rung_dtype type;
    int        rank;
    int64_t    dims[RUNG_MAX_RANK];
    void      *data;
} rung_tensor;
